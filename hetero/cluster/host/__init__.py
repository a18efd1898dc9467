"""One host of a run: its agent, its processes, and what they are told."""
