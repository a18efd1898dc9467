"""A step in simulated time."""
