"""The event loop, and what Linux is asked for."""
