"""Emulated chips that would be taken for dead are refused while nothing has started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hetero.cluster.fleet import Patience
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.silence import check_silence
from tests.architecture.tree import ROOT


def quickstart(*settings: str) -> Job:
    return load_job(ROOT / "configs" / "runs" / "quickstart.yaml", settings)


LONGEST_SCALE = Patience().rank_s / plan_job(quickstart("time_scale=1")).prediction.step_s


def test_a_step_that_outlasts_the_patience_with_ranks_is_refused_when_it_is_planned() -> None:
    plan_job(quickstart(f"time_scale={0.99 * LONGEST_SCALE}"))
    with pytest.raises(JobError, match=r"a step takes 606 s, .* 600 s counts as dead") as caught:
        plan_job(quickstart(f"time_scale={1.01 * LONGEST_SCALE}"))
    assert (caught.value.key, "lower it" in caught.value.remedy) == ("time_scale", True)


def test_so_is_one_that_does_so_with_its_validation() -> None:
    with pytest.raises(JobError, match=r"with its 3 batches of validation takes 1,000 s") as caught:
        plan_job(quickstart(f"time_scale={LONGEST_SCALE / 1.2}", "eval.every=2", "eval.batches=3"))
    assert "eval.batches" in caught.value.remedy


def test_so_is_one_that_does_so_with_its_shadow() -> None:
    with pytest.raises(JobError, match=r"a step with its shadow takes .* 600 s counts as dead") as caught:
        plan_job(quickstart(f"time_scale={0.99 * LONGEST_SCALE}", "train.shadow={every: 100, pool: ascend}"))
    assert "or leave train.shadow out" in caught.value.remedy


def test_and_one_whose_scale_is_found_when_the_run_has_measured() -> None:
    job = quickstart("time_scale=auto")
    prediction = plan_job(job).prediction
    check_silence(job, prediction, 0.99 * LONGEST_SCALE)
    with pytest.raises(JobError, match="auto, here") as caught:
        check_silence(job, prediction, 1.01 * LONGEST_SCALE)
    assert "lower it" not in caught.value.remedy


def test_real_chips_are_planned_for_all_the_same_with_a_note() -> None:
    real = [f"pools.{pool}.emulate=null" for pool in ("nvidia", "ascend", "kunlun")]
    planned = plan_job(quickstart("time_scale=auto", *real))
    assert planned.notes == []
    slow = replace(planned, prediction=replace(planned.prediction, step_s=700.0))
    (note,) = slow.notes
    assert note.startswith("by its plan a step takes 700 s, and a rank that says nothing for 600 s counts as dead")
