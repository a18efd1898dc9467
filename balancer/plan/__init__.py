"""The plan, as it is written and read."""
