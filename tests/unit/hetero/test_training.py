"""`hetero.train` from Python: what it takes for a job, and who hears of the run. Its ranks exist in a script alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hetero
from balancer.plan.plan import Plan
from hetero.callbacks import RunStart
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.monitoring.journal import EVENTS, METRICS, read
from hetero.run import RunSummary
from tests.architecture.tree import ROOT
from tests.e2e.bad_input.scripted import script

FILE = ROOT / "configs" / "runs" / "quickstart.yaml"


class Follower:
    """Notes what it hears; raises at `breaks`."""

    def __init__(self, breaks: str = "") -> None:
        self.heard: list[tuple[str, Any]] = []
        self._breaks = breaks

    def _hear(self, hook: str, said: Any) -> None:
        self.heard.append((hook, said))
        if hook == self._breaks:
            raise ValueError("a bug in a callback")

    def on_start(self, start: RunStart) -> None:
        self._hear("start", start)

    def on_step(self, metrics: Any) -> None:
        self._hear("step", metrics["step"])

    def on_event(self, event: Any) -> None:
        self._hear(event["kind"], event)

    def on_end(self, summary: RunSummary) -> None:
        self._hear("end", summary)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.heard]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings that every job here needs."""
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(range(256)) * 40)
    script(monkeypatch)
    return {
        "set": [f"data.source={text}", "data.seq_len=16", "train.steps=2", "checkpoint.every=0"],
        "run_dir": tmp_path / "run",
    }


def _as_data() -> dict[str, Any]:
    return load_job(FILE).unmasked()


@pytest.mark.parametrize("job", [str(FILE), _as_data(), load_job(FILE)], ids=["file", "data", "built"])
def test_a_job_is_a_file_data_or_built(job: Any, told: dict[str, Any]) -> None:
    follower = Follower()
    summary = hetero.train(job, **told, callbacks=[follower])
    assert summary.run_dir == told["run_dir"]
    assert summary.last is not None
    assert summary.last["step"] == 1
    assert follower.heard[0][1].job.name == "quickstart"
    assert [said for kind, said in follower.heard if kind == "step"] == [0, 1]
    assert follower.kinds[:2] == ["start", "started"]
    assert follower.kinds[-2:] == ["finished", "end"]
    assert follower.heard[-1][1] is summary


def test_data_stays_as_it_was_and_may_hold_paths(told: dict[str, Any], tmp_path: Path) -> None:
    job = _as_data()
    job["data"]["source"] = tmp_path / "text.txt"
    before = str(job)
    hetero.train(job, set=told["set"][1:], run_dir=told["run_dir"])
    assert str(job) == before


def test_a_plan_may_be_a_plan_or_a_file(told: dict[str, Any], tmp_path: Path) -> None:
    first = hetero.train(FILE, **told)
    assert isinstance(first.plan, Plan)
    again = hetero.train(FILE, **told | {"run_dir": tmp_path / "2"}, plan=first.plan)
    third = hetero.train(FILE, **told | {"run_dir": tmp_path / "3"}, plan=tmp_path / "2" / "plan.json")
    assert first.plan == again.plan == third.plan


@pytest.mark.parametrize("breaks", ["start", "started", "step"])
def test_an_error_of_a_callback_ends_the_run_as_it_is(breaks: str, told: dict[str, Any]) -> None:
    follower, other = Follower(breaks), Follower()
    with pytest.raises(ValueError, match="a bug in a callback") as caught:
        hetero.train(FILE, **told, callbacks=[follower, other])
    assert caught.traceback[-1].name == "_hear"
    assert breaks in follower.kinds
    assert follower.kinds[-1] == breaks
    assert breaks not in other.kinds
    if breaks == "start":
        assert not told["run_dir"].exists()
    else:
        last = list(read(told["run_dir"] / EVENTS))[-1]
        assert (last["kind"], last["data"]["cause"]) == ("failed", "ValueError: a bug in a callback")
    if breaks == "step":
        assert len(list(read(told["run_dir"] / METRICS))) == 1


def test_what_would_never_be_called_is_refused(told: dict[str, Any]) -> None:
    class Misspelt:
        def on_setp(self, metrics: Any) -> None: ...

    with pytest.raises(JobError, match="has none of on_start, on_step"):
        hetero.train(FILE, **told, callbacks=[Misspelt()])


def test_a_mistake_in_data_names_its_key_and_no_file(told: dict[str, Any]) -> None:
    job = _as_data()
    job["train"]["stpes"] = 1
    with pytest.raises(JobError, match="did you mean 'steps'") as caught:
        hetero.train(job, **told)
    assert (caught.value.key, caught.value.file or None) == ("train.stpes", None)
