"""docs/monitoring.md says what is there: its tables are whole, its numbers those of the code."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from hetero.monitoring.alerts import FEWEST, WINDOW
from hetero.monitoring.feed import QUEUED_LINES, SECONDS_TO_CLOSE
from hetero.monitoring.prometheus import Metrics
from hetero.monitoring.tracker import BUILT_IN, load_tracker
from tests.architecture.tree import ROOT
from tests.unit.hetero.monitoring.runs import tracked

TEXT = (ROOT / "docs" / "monitoring.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_option_of_a_tracker_is_named_in_its_row(name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install 'hetero[{name}]'")
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |")]
    assert not [option for option in load_tracker(name).Options.model_fields if f"`{option}`" not in row]


def test_exactly_the_metrics_that_there_are() -> None:
    endings = {"counter": "_total", "info": "_info"}
    exported = {found.name + endings.get(found.type, "") for found in Metrics(tracked()).registry.collect()}
    assert set(re.findall(r"`(hetero_\w+)`", TEXT)) == exported


def test_numbers_are_those_of_the_code() -> None:
    for said in (f"{QUEUED_LINES} lines", f"{SECONDS_TO_CLOSE:.0f} s of", f"last {WINDOW} steps", f"at least {FEWEST}"):
        assert said in TEXT
