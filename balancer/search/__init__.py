"""The best plan for a problem, and what is said about the choice."""
