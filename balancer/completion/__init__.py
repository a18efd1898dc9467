"""What a plan leaves open, what makes it illegal, and which chips it leaves idle."""
