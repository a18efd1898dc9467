"""How all tests run: a slow or busy machine is no failure of a property, and CI sees the same examples every time."""

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell has what it starts in the background ignore Ctrl-C, which every child of ours would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
