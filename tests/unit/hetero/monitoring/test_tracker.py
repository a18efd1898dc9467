"""Names of curves, and which trackers there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.monitoring import tracker
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.monitor import Monitor
from hetero.monitoring.options import MonitorOptions
from hetero.monitoring.tracker import Tracker, TrackerOptions, curves, load_tracker, tracker_names
from tests.architecture.tree import ROOT
from tests.unit.hetero.monitoring.reports import SHADOW
from tests.unit.hetero.monitoring.runs import line, tracked


class _Options(TrackerOptions):
    color: str = "blue"


class Foreign(Tracker):
    """What a package from outside brings."""

    Options = _Options
    seen: list[tuple[int, str]] = []  # noqa: RUF012

    def __init__(self, run: Any, options: _Options) -> None:
        self._color = options.color

    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        self.seen.append((step, self._color))

    def close(self) -> None:
        self.seen.append((-1, self._color))


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("foreign", f"{__name__}:Foreign", tracker.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Foreign)
    monkeypatch.setattr(tracker, "entry_points", lambda group: [point] if group == "hetero.trackers" else [])
    Foreign.seen.clear()


def _monitor(*trackers: Any) -> Monitor:
    return Monitor(MonitorOptions.model_validate({"trackers": trackers}), tracked())


def test_what_emulated_chips_decide_shares_no_curve_with_real_figures() -> None:
    values = curves(line(0), tracked())
    assert {"loss", "grad_norm", "emulated/tokens_per_s", "emulated/pools/a/mfu", "pools/b/mfu"} <= set(values)
    assert {"emulated/stages/0.0/forward_s", "stages/0.1/forward_s"} <= set(values)
    assert "emulated/links/b-to-a/exposed_s" in values, "one of its ends is emulated"
    assert not {"tokens_per_s", "pools/a/mfu", "step", "time", "emulated"} & set(values)
    assert "emulated/shadow/0.1/value" in curves(line(0, shadow=asdict(SHADOW)), tracked()), "one of its pools is"


def test_values_that_are_not_finite_make_no_point() -> None:
    assert "loss" not in curves(line(0, loss=None), tracked())
    assert "loss" not in curves(line(0, loss=float("inf")), tracked())


def test_real_runs_have_plain_names() -> None:
    assert "tokens_per_s" in curves(line(0, emulated=False), tracked())


def test_a_tracker_may_come_from_outside(foreign: None) -> None:
    assert "foreign" in tracker_names()
    monitor = _monitor("foreign", {"name": "foreign", "options": {"color": "red"}})
    assert monitor.start() == []
    assert monitor.record(line(0)) == []
    assert monitor.close() == []
    assert sorted(Foreign.seen) == [(-1, "blue"), (-1, "red"), (0, "blue"), (0, "red")]
    assert monitor.close() == [], "closed once"


def test_an_unknown_option_is_named(foreign: None) -> None:
    with pytest.raises(MonitorError) as caught:
        _monitor({"name": "foreign", "options": {"colour": "red"}})
    assert caught.value.key == "monitor.trackers[0].options.colour"
    assert "did you mean 'color'?" in caught.value.remedy


def test_an_option_of_the_wrong_type_is_named(foreign: None) -> None:
    with pytest.raises(MonitorError) as caught:
        _monitor({"name": "foreign", "options": {"color": 3}})
    assert (caught.value.key, caught.value.value) == ("monitor.trackers[0].options.color", 3)


def test_an_unknown_tracker_is_refused_with_its_line(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text((ROOT / "configs/runs/auto.yaml").read_text() + "\nmonitor:\n  trackers:\n    - tensorbord\n")
    with pytest.raises(JobError) as caught:
        load_job(job)
    assert "did you mean 'tensorboard'?" in caught.value.remedy
    assert caught.value.key == "monitor.trackers[0]"
    assert caught.value.line == len(job.read_text().splitlines())


def test_a_package_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(tracker, "import_module", missing)
    with pytest.raises(MonitorError) as caught:
        load_tracker("wandb", "monitor.trackers[1]")
    assert caught.value.key == "monitor.trackers[1]"
    assert caught.value.remedy == "pip install 'hetero[wandb]'"
