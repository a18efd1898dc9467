"""Laws 1, 2 and 9: any plan trains, and validates, as one plain process does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hetero.data.source import Prepared
from hetero.models.dimensions import Dimensions
from hetero.words.options import EvalOptions
from tests.distributed.beside_plain import Record, is_as_plain, trains_as_plain
from tests.distributed.cases import CASES, Case, find
from tests.distributed.fleet import Standing
from tests.distributed.plain import PlainModel, PlainTraining
from tests.distributed.two_actions import WAYS

VALIDATED = (
    "rows of the stream, tp grows",
    "chunks and tp mixed",
    "again and again",
    "tied, apart and together",
    "7, 2 and 1 in stages",
    "bfloat16",
)


def _short(case: Case) -> Case:
    evaluation = EvalOptions(every=2, batches=2) if case.name in VALIDATED else case.job.evaluation
    return replace(case, job=replace(case.job, evaluation=evaluation))


SHORT = [_short(case) for case in CASES if case.job.train.steps < 50]
LONG = [case for case in CASES if case.job.train.steps >= 50]
IN_EVERY_RUN = ("long: tp 1, 2 and 4",)
"""A rate that changes; unequal shares of one batch train over Ray (tests/e2e)."""
ANOTHER_TIME = (
    "tp grows",
    "chunks and tp mixed",
    "7, 2 and 1 in stages",
    "tied, apart and together",
    "zero bubble",
    "half a layer apart",
    "tp shrinks",
    "tp 4 next to 4, chips in another order",
    "five layers uneven",
    "seven layers, two stages of a pool",
    "20 and 12, five layers",
    "7, 2 and 1",
    "a head for each key",
    "one key for all heads",
    "biases",
    "tied over two stages",
    "tied in two chunks",
    "tied, float16 beside float32",
    "rows of the stream beside all of it, tied",
    "adapters, tp 2, a cut in the middle",
    "adapters of latents and a shared expert, routers train also",
    "experts and routers frozen",
)
"""Other cuts and shares of what is in another case as well."""


def _in_every_run(case: Case) -> bool:
    return case.name in IN_EVERY_RUN if case in LONG else case.name not in ANOTHER_TIME


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    return [] if _in_every_run(case) else [pytest.mark.exhaustive]


def _strategies(cases: list[Case]) -> set[tuple[str, str]]:
    found = set[tuple[str, str]]()
    for case in cases:
        dims, stages = case.job.dimensions, [stage for one in case.plan.pipelines for stage in one.stages]
        if isinstance(dims, Dimensions):
            found |= {(name, str(getattr(dims, name))) for name in ("kv_heads", "qkv_bias", "tie_embeddings")}
        found |= {("schedule", case.plan.schedule), ("coarsest", case.job.coarsest)}
        tuning = case.job.train.tuning
        found |= {("adapters", str(tuning.lora is not None)), ("frozen", str(bool(tuning.freeze)))}
        found |= {
            (name, str(getattr(stage, name)))
            for name in ("pool", "tp", "recompute", "sequence_parallel", "tp_slices", "optimizer", "experts")
            for stage in stages
        }
    return found


def test_every_run_has_each_strategy() -> None:
    assert _strategies([case for case in SHORT if _in_every_run(case)]) == _strategies(SHORT)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=_marks(case)) for case in SHORT])
def test_gradients_and_steps(
    case: Case, fleet: Standing, text: Prepared, tmp_path: Path, record_property: Record
) -> None:
    """Plain SGD, so that gradients of later steps may be compared as well."""
    trains_as_plain(case, fleet, text, tmp_path, record_property)


IN_TWO = {"chunks and tp mixed": "W two later", "tied in two chunks": "W at once", "bfloat16": "W at the end"}
"""When weight gradients are made."""


def _in_two(case: Case, way: str) -> Case:
    return replace(case, plan=case.plan.model_copy(update={"job_fingerprint": way}))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            _in_two(find(name), way), id=f"{name}, {way}", marks=[pytest.mark.exhaustive] * (name not in IN_TWO)
        )
        for name in dict.fromkeys([*IN_TWO, *(case.name for case in SHORT)])
        for way in ([IN_TWO[name]] if name in IN_TWO else WAYS)
    ],
)
def test_backwards_in_two_actions(
    case: Case, fleet: Standing, text: Prepared, tmp_path: Path, record_property: Record
) -> None:
    """Uneven cuts, tp of several families, tied weights, chunks, precisions."""
    trains_as_plain(case, fleet, text, tmp_path, record_property)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=_marks(case)) for case in LONG])
def test_fifty_steps(case: Case, fleet: Standing, text: Prepared, record_property: Record) -> None:
    """From the job's own initial values."""
    run = fleet.train(case.job, case.plan, capture=[0])
    model = PlainModel(case.job.dimensions, case.job.train.seed)
    plain = list(PlainTraining(case.job, text, model).steps(case.job.train.steps))
    is_as_plain(case, run, plain, [0], record_property)
