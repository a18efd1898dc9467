"""How all tests run: a slow or busy machine is no failure of a property. CI sees the same examples every time; a person
sees half as many, and others every time."""

import contextlib
import os
import signal

from hypothesis import HealthCheck, settings

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", PATIENT, max_examples=50)
settings.register_profile("ci", PATIENT, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell has what it starts in the background ignore Ctrl-C, which every child of ours would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Whoever is woken waits for his turn, as on a machine with cores for all: gloo's thread spins while another holds its
# lock, which he may do for long if he is put aside for each that wakes. Whatever a test starts inherits it.
with contextlib.suppress(AttributeError, OSError):
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
