"""How long a test waits for what comes much sooner: enough for a machine many times slower or busier than any that it
was written on. No test measures anything by it, and each goes on as soon as what it waits for is there."""

WAIT_S = 60.0
"""For one answer, message or end of a process."""
RUN_S = 600.0
"""For a run, or for what a run does."""
