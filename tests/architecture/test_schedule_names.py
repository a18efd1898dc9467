"""Whoever needs to know something of a schedule asks it: its name is a default, and nothing is told by it."""

from __future__ import annotations

import re

from balancer.schedule.registry import schedules
from tests.architecture.tree import PACKAGES, name_of, python_files

DEFAULTS = {"balancer/plan/plan.py", "balancer/options.py"}


def test_no_schedule_is_told_by_its_name() -> None:
    quoted = re.compile(rf"""["']({"|".join(schedules())})["']""")
    found = {name_of(path) for path in python_files(*PACKAGES) if quoted.search(path.read_text())}
    assert {name for name in found if not name.startswith("balancer/schedule/orders/")} == DEFAULTS
