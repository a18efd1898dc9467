"""What a chip is: its facts and how to drive it."""
