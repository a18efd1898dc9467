"""The life of a run as a pure state machine, and what it hears and says."""
