"""Whoever needs to know something of a schedule asks it: its name is a default, and nothing is told by it."""

from __future__ import annotations

import re

from balancer.schedule.registry import schedules
from tests.architecture.tree import PACKAGES, name_of, python_files

DEFAULTS = {"balancer/plan/plan.py", "balancer/options.py"}


def test_no_schedule_is_told_by_its_name() -> None:
    names = (name for name in schedules() if len(name) > 1)  # a letter may be anything
    quoted = re.compile(rf"""["']({"|".join(names)})["']""")
    found = {name_of(path) for path in python_files(*PACKAGES) if quoted.search(path.read_text())}
    assert {name for name in found if not name.startswith("balancer/schedule/orders/")} == DEFAULTS
