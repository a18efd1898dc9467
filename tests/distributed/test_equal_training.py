"""Laws 1, 2 and 9: any plan trains as one plain process does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hetero.data.source import Prepared
from tests.distributed.cases import CASES, Case
from tests.distributed.fleet import Run, Standing
from tests.distributed.laws import TOLERANCES, series_deviation, tensor_deviation
from tests.distributed.plain import PlainModel, PlainStep, PlainTraining

Record = Callable[[str, object], None]
SHORT = [case for case in CASES if case.job.train.steps < 50]
LONG = [case for case in CASES if case.job.train.steps >= 50]


def _check(case: Case, run: Run, plain: list[PlainStep], captured: list[int], record: Record) -> None:
    limit = TOLERANCES[case.job.coarsest]
    for step in captured:
        gradients = tensor_deviation(run.gradients(step), plain[step].gradients, limit.floor)
        record(f"gradient {step}", gradients.deviation)
        assert gradients.deviation <= limit.gradient, f"step {step}: {gradients}"
    loss = series_deviation(run.losses, [step.loss for step in plain])
    norm = series_deviation(run.norms, [step.norm for step in plain])
    record("loss", loss.deviation)
    record("norm", norm.deviation)
    assert loss.deviation <= limit.loss, loss
    assert norm.deviation <= limit.norm, norm


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.name)
def test_gradients_and_steps(
    case: Case, fleet: Standing, text: Prepared, tmp_path: Path, record_property: Record
) -> None:
    """From weights without special values; plain SGD, so that gradients of later steps may be compared as well."""
    model = PlainModel(case.job.dimensions, case.job.train.seed).unsettle()
    model.save(tmp_path)
    steps = list(range(case.job.train.steps))
    run = fleet.train(case.job, case.plan, begin_from=tmp_path, capture=steps)
    plain = list(PlainTraining(case.job, text, model).steps(len(steps)))
    _check(case, run, plain, steps, record_property)


@pytest.mark.parametrize("case", LONG, ids=lambda case: case.name)
def test_fifty_steps(case: Case, fleet: Standing, text: Prepared, record_property: Record) -> None:
    """From the job's own initial values."""
    run = fleet.train(case.job, case.plan, capture=[0])
    model = PlainModel(case.job.dimensions, case.job.train.seed)
    plain = list(PlainTraining(case.job, text, model).steps(case.job.train.steps))
    _check(case, run, plain, [0], record_property)
