"""What is measured once is what plans are made by from then on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from balancer.cost.times import UPDATE_BYTES
from hetero.job.job import Job
from hetero.job.planning.links import Probed
from hetero.job.planning.measuring import kept_profile, measure, profile, times
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.profile import NOTHING_MEASURED, Profile
from tests.unit.hetero.job.planning.slow_fleet import CHIP, SLOWNESS, SPREAD, SlowFleet, emulated_job, rate_row


def _profile(fleet: SlowFleet, job: Job, again: bool = False) -> Profile:
    return profile(job, fleet, lambda note: None, again)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_profile_is_measured_once_and_is_what_a_run_and_a_plan_begin_from() -> None:
    job, fleet = emulated_job(), SlowFleet(emulated_job())
    assert kept_profile(job) == NOTHING_MEASURED
    found = _profile(fleet, job)
    assert _profile(fleet, job) == found == kept_profile(job)
    measured = measure(job, fleet, None)  # type: ignore[arg-type]
    assert fleet.asked == {"thorough": 1}
    assert measured.profile == found
    assert {row["micro_batch"] for row in measured.rows} == {job.train.micro_batch}


def test_a_plan_by_a_profile_is_as_slow_as_the_chips_and_says_how_sure_it_is() -> None:
    job = emulated_job()
    found = _profile(SlowFleet(job), job)
    by_sheet, known = plan_job(job), plan_job(job, times(job, found), profile=found)
    assert known.prediction.compute_s == pytest.approx(SLOWNESS * by_sheet.prediction.compute_s, rel=0.1)
    assert by_sheet.band is None
    assert known.band is not None
    assert known.band.low_s < known.prediction.step_s * 1.05 < known.band.high_s * 1.05
    assert known.profile.noise()["nvidia"].spread == SPREAD


@pytest.mark.parametrize("change", ["again", "node", "torch", "job"])
def test_it_is_measured_anew_where_that_was_asked_for_or_anything_has_changed(change: str) -> None:
    job, fleet = emulated_job(), SlowFleet(emulated_job())
    _profile(fleet, job)
    if change == "job":
        job = emulated_job("data.seq_len=128")
    elif change != "again":
        fleet = SlowFleet(job, **{change: "other"})
    _profile(fleet, job, again=change == "again")
    assert fleet.asked["thorough"] == (1 if change in ("node", "torch") else 2)


def test_what_a_run_has_measured_is_no_profile_but_what_a_plan_is_made_by() -> None:
    job, fleet = emulated_job(), SlowFleet(emulated_job())
    measure(job, fleet, None)  # type: ignore[arg-type]
    assert kept_profile(job).units()
    _profile(fleet, job)
    assert fleet.asked == {"quick": 1, "thorough": 1}


def test_the_rates_of_a_profile_replace_those_of_the_data_sheet() -> None:
    rates = {"update": 1e9, "to_host": 9e9, "from_host": 7e9, "host_update": 2e9}
    rows = [*(rate_row("a", part, rate) for part, rate in rates.items()), rate_row("a", "all_reduce", 1e10, 4)]
    chip = Profile(rows).chip("a", CHIP)
    assert chip.memory_bytes_per_s == UPDATE_BYTES * 1e9
    assert chip.host_bytes_per_s == 7e9, "the least of what it is used for"
    assert chip.interconnect_bytes_per_s == pytest.approx(1.5e10)
    assert Profile(rows).chip("b", CHIP) == CHIP
    assert Profile([rate_row("a", "memory", 1.0)]).chip("a", CHIP) == CHIP
    assert replace(chip, memory_bytes_per_s=0.0, host_bytes_per_s=0.0, interconnect_bytes_per_s=0.0) == replace(
        CHIP, memory_bytes_per_s=0.0, host_bytes_per_s=0.0, interconnect_bytes_per_s=0.0
    )


@pytest.mark.parametrize("rtt_s", [0.5, None])
def test_links_are_kept_as_if_nothing_were_slowed(rtt_s: float | None) -> None:
    rows = [{"source": "a", "target": "b", "bytes_per_s": 3.0, "rtt_s": rtt_s, "streams": 1}]
    (row,) = Probed(rows, 10.0).unscaled()
    assert (row["bytes_per_s"], row["rtt_s"]) == (30.0, rtt_s and rtt_s / 10)
