"""How all tests run: a slow or busy machine is no failure of a property, which is tried with few examples, by
`make check` with fewest and by `make test-all` with many. CI sees the same examples every time, a person others."""

import contextlib
import gc
import os
import signal

from hypothesis import HealthCheck, settings

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ)
settings.register_profile("fewest", PATIENT, max_examples=8)
settings.register_profile("few", PATIENT, max_examples=25)
settings.register_profile("many", PATIENT, max_examples=200)
settings.load_profile("few")

# A shell has what it starts in the background ignore Ctrl-C, which every child of ours would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Whoever is woken waits for his turn, as on a machine with cores for all: gloo's thread spins while another holds its
# lock, which he may do for long if he is put aside for each that wakes. Whatever a test starts inherits it.
with contextlib.suppress(AttributeError, OSError):
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

# What is collected stays to the end: no collection of garbage needs to walk it again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
