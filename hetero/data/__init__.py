"""Text in, samples out: the same on every host."""
