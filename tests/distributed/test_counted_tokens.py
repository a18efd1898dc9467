"""Laws 1 and 2 where few tokens count, unequally many for each micro-batch and pipeline, and documents are packed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hetero.checkpoint.store import CheckpointStore
from hetero.data.source import Prepared
from hetero.words.options import EvalOptions, LossScaleOptions
from tests.distributed.beside_plain import trains_as_plain
from tests.distributed.cases import MOMENTUM, ROWS, SOME, Case, a1, a2, a4, case_of, k1, k2, n1, n2, n4, pipeline
from tests.distributed.documents import answered_questions, is_varied
from tests.distributed.fleet import Job, Standing
from tests.distributed.plain import GlobalBatches
from tests.tiny_provided import tiny_provided


def _case(name: str, *pipelines: Any, evaluated: bool = False, **changes: Any) -> Case:
    made = case_of(name, *pipelines, **changes)
    evaluation = EvalOptions(every=2, batches=2) if evaluated else made.job.evaluation
    return Case(name, made.plan, Job(made.job.dimensions, made.job.train, evaluation, made.job.precisions))


CASES = (
    _case(
        "uneven shares, middle stages, rows of the stream",
        pipeline(5, n1(0, 3), a2(3, 4, **ROWS), k2(4, 6)),
        pipeline(2, a2(0, 6)),
        pipeline(1, n1(0, 6)),
        evaluated=True,
        tie_embeddings=True,
    ),
    _case(
        "made again, in chunks",
        pipeline(6, k1(0, 2, 8, 10, recompute=SOME), a4(2, 8, 10, 16, recompute="full"), micro_batch=2),
        layers=7,
    ),
)
MORE = (
    _case("two actions", pipeline(6, n2(0, 5), a2(5, 9), k1(9, 12)), layers=5, schedule="zero-bubble",
          optimizer=MOMENTUM),
    _case("float16 beside others", pipeline(4, n2(0, 3), a4(3, 6)), pipeline(2, k2(0, 6)), precision="bfloat16",
          precisions={"ascend": "float16", "kunlun": "float32"}),
    _case("tp 4 in slices", pipeline(4, n4(0, 3, **ROWS, tp_slices=3), a4(3, 6, tp_slices=2), micro_batch=2),
          kv_heads=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return answered_questions(tmp_path_factory.mktemp("questions"))


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.exhaustive) for case in MORE)],
    ids=lambda case: case.name,
)
def test_gradients_and_steps(case: Case, fleet: Standing, questions: Prepared, tmp_path: Path) -> None:
    batches = GlobalBatches(questions, case.job)
    assert all(is_varied(batches[step]) for step in range(case.job.train.steps))
    run = trains_as_plain(case, fleet, questions, tmp_path)
    counted = [batches[step].counted for step in range(case.job.train.steps)]
    assert [step.counted_tokens for step in run.totals] == counted
    assert len(set(counted)) > 1
    for done, step in enumerate(run.totals, 1):
        assert step.tokens == batches[0].tokens_BT.numel() > step.counted_tokens > 0
        assert step.consumed_tokens == done * step.tokens


def test_on_transformers_own_modules(fleet: Standing, questions: Prepared, tmp_path: Path) -> None:
    """Whose masks and positions are made of the documents' positions, in each stage anew."""
    first = n2(0, 2, recompute="selective")
    plan = pipeline(4, first, a1(2, 4), micro_batch=2), pipeline(3, k1(0, 4, recompute="full"))
    trains_as_plain(case_of("", *plan, model=tiny_provided("exaone4")), fleet, questions, tmp_path)


def test_a_batch_of_which_nothing_counts_changes_nothing(fleet: Standing, questions: Prepared, tmp_path: Path) -> None:
    """No parameter, no loss scale, under no plan; the step has no loss."""
    case = case_of("", pipeline(1, n1(0, 3), a2(3, 6)), pipeline(1, k1(0, 6)), steps=6, optimizer=MOMENTUM,
                   precision="bfloat16", precisions={"ascend": "float16"})  # fmt: skip
    train = case.job.train.model_copy(update={"seed": 4, "loss_scale": LossScaleOptions(initial=64.0, grow_every=2)})
    job = Job(case.job.dimensions, train, precisions=case.job.precisions)
    batches = GlobalBatches(questions, job)
    counted = [batches[step].counted for step in range(6)]
    empty = [step for step, count in enumerate(counted) if not count]
    assert empty, counted
    assert len(empty) < 6
    run = fleet.train(job, case.plan, text=questions, save_to=tmp_path)
    assert [step for step, totals in enumerate(run.totals) if totals.skipped] == empty
    assert [step for step, totals in enumerate(run.totals) if math.isnan(totals.loss)] == empty
    assert [run.totals[step].grad_norm for step in empty] == [0.0] * len(empty)
    scales, good = [], 0
    for count in counted:
        scales.append(64.0 * 2 ** (good // 2))
        good += count > 0
    assert [step.loss_scale for step in run.totals] == scales
    scalars = CheckpointStore(tmp_path).manifest(6).run.scalars
    assert scalars["updates"] == 6 - len(empty)
    assert (scalars["loss_scale"], scalars["good_steps"]) == (64.0 * 2 ** (good // 2), good % 2)
