"""What is measured once is what plans are made by from then on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.chip import load_chip
from balancer.cost.times import UPDATE_BYTES, datasheet_times
from hetero.cluster.options import fleet_of
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.links import Probed
from hetero.job.planning.measuring import kept_profile, measure, profile, times
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import topology, workload
from hetero.job.planning.profile import NOTHING_MEASURED, Profile
from hetero.words.spec import CalibrationSpec
from tests.architecture.tree import ROOT

SLOWNESS, SPREAD = 2.0, 0.03
CHIP = load_chip("A800-80G")


def _job(*settings: str) -> Job:
    return load_job(Path(ROOT / "configs" / "runs" / "auto.yaml"), ["time_scale=1000", *settings])


class Fleet:
    """A session whose chips take twice what their data sheets say."""

    def __init__(self, job: Job, node: str = "here", torch: str = "2.13") -> None:
        self.fleet, self._job, self._node, self._torch = fleet_of(job.pools), job, node, torch
        self.asked: Counter[str] = Counter()

    def node(self, host: str) -> str:
        return self._node

    def software(self, host: str) -> dict[str, str]:
        return {"torch": self._torch}

    def calibrate(self, spec: CalibrationSpec) -> list[dict[str, Any]]:
        self.asked["thorough" if spec.strategies else "quick"] += 1
        believed = datasheet_times(topology(self._job), workload(self._job))
        return [
            {
                "pool": pool,
                "tp": tp,
                "kind": unit.kind,
                "forward_s": SLOWNESS * time.forward_s,
                "backward_s": SLOWNESS * time.backward_s * (1 if size == spec.micro_batch else 100),
                "micro_batch": size,
                "spread": SPREAD,
                "repeats": spec.repeats,
            }
            for pool, sizes in spec.tensor_parallel.items()
            for tp in sizes
            for unit in {unit.kind: unit for unit in workload(self._job).units}.values()
            for size in sorted({spec.micro_batch, *spec.also})
            for time in [believed.lookup(pool, tp, unit.kind)]
        ]

    def rates(self, spec: CalibrationSpec) -> list[dict[str, Any]]:
        return [_rate(pool, "update", CHIP.memory_bytes_per_s / UPDATE_BYTES / 2) for pool in spec.pools]

    def probe(self, links: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        raise AssertionError("all links of emulated pools are as the job file says")


def _rate(pool: str, part: str, per_s: float, tp: int = 1) -> dict[str, Any]:
    return {"pool": pool, "part": part, "tp": tp, "shape": [1], "per_s": per_s, "spread": 0.0, "repeats": 1}


def _profile(fleet: Fleet, job: Job, again: bool = False) -> Profile:
    return profile(job, fleet, lambda note: None, again)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_profile_is_measured_once_and_is_what_a_run_and_a_plan_begin_from() -> None:
    job, fleet = _job(), Fleet(_job())
    assert kept_profile(job) == NOTHING_MEASURED
    found = _profile(fleet, job)
    assert _profile(fleet, job) == found == kept_profile(job)
    measured = measure(job, fleet, None)  # type: ignore[arg-type]
    assert fleet.asked == {"thorough": 1}
    assert measured.profile == found
    assert {row["micro_batch"] for row in measured.rows} == {job.train.micro_batch}


def test_a_plan_by_a_profile_is_as_slow_as_the_chips_and_says_how_sure_it_is() -> None:
    job = _job()
    found = _profile(Fleet(job), job)
    by_sheet, known = plan_job(job), plan_job(job, times(job, found), profile=found)
    assert known.prediction.compute_s == pytest.approx(SLOWNESS * by_sheet.prediction.compute_s, rel=0.1)
    assert by_sheet.band is None
    assert known.band is not None
    assert known.band.low_s < known.prediction.step_s * 1.05 < known.band.high_s * 1.05
    assert known.profile.noise()["nvidia"].spread == SPREAD


@pytest.mark.parametrize("change", ["again", "node", "torch", "job"])
def test_it_is_measured_anew_where_that_was_asked_for_or_anything_has_changed(change: str) -> None:
    job, fleet = _job(), Fleet(_job())
    _profile(fleet, job)
    if change == "job":
        job = _job("data.seq_len=128")
    elif change != "again":
        fleet = Fleet(job, **{change: "other"})
    _profile(fleet, job, again=change == "again")
    assert fleet.asked["thorough"] == (1 if change in ("node", "torch") else 2)


def test_what_a_run_has_measured_is_no_profile_but_what_a_plan_is_made_by() -> None:
    job, fleet = _job(), Fleet(_job())
    measure(job, fleet, None)  # type: ignore[arg-type]
    assert kept_profile(job).units()
    _profile(fleet, job)
    assert fleet.asked == {"quick": 1, "thorough": 1}


def test_the_rates_of_a_profile_replace_those_of_the_data_sheet() -> None:
    rates = {"update": 1e9, "to_host": 9e9, "from_host": 7e9, "host_update": 2e9}
    rows = [*(_rate("a", part, rate) for part, rate in rates.items()), _rate("a", "all_reduce", 1e10, 4)]
    chip = Profile(rows).chip("a", CHIP)
    assert chip.memory_bytes_per_s == UPDATE_BYTES * 1e9
    assert chip.host_bytes_per_s == 7e9, "the least of what it is used for"
    assert chip.interconnect_bytes_per_s == pytest.approx(1.5e10)
    assert Profile(rows).chip("b", CHIP) == CHIP
    assert Profile([_rate("a", "memory", 1.0)]).chip("a", CHIP) == CHIP
    assert replace(chip, memory_bytes_per_s=0.0, host_bytes_per_s=0.0, interconnect_bytes_per_s=0.0) == replace(
        CHIP, memory_bytes_per_s=0.0, host_bytes_per_s=0.0, interconnect_bytes_per_s=0.0
    )


@pytest.mark.parametrize("rtt_s", [0.5, None])
def test_links_are_kept_as_if_nothing_were_slowed(rtt_s: float | None) -> None:
    rows = [{"source": "a", "target": "b", "bytes_per_s": 3.0, "rtt_s": rtt_s, "streams": 1}]
    (row,) = Probed(rows, 10.0).unscaled()
    assert (row["bytes_per_s"], row["rtt_s"]) == (30.0, rtt_s and rtt_s / 10)
