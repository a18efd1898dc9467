"""A run of a plan beside the same training in one plain process: laws 1 and 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hetero.data.source import Prepared
from tests.distributed.cases import Case
from tests.distributed.fleet import Run, Standing
from tests.distributed.laws import TOLERANCES, series_deviation, tensor_deviation
from tests.distributed.plain import PlainModel, PlainStep, PlainTraining

Record = Callable[[str, object], None]


def forget(name: str, value: object) -> None:
    """A record that nobody keeps."""


def trains_as_plain(case: Case, fleet: Standing, text: Prepared, folder: Path, record: Record = forget) -> None:
    """Every step of the case, from weights without special values, which `folder` holds."""
    model = PlainModel(case.job.dimensions, case.job.train.seed).unsettle()
    model.save(folder)
    steps = list(range(case.job.train.steps))
    run = fleet.train(case.job, case.plan, begin_from=folder, capture=steps)
    plain = list(PlainTraining(case.job, text, model).steps(len(steps)))
    is_as_plain(case, run, plain, steps, record)


def is_as_plain(case: Case, run: Run, plain: list[PlainStep], captured: list[int], record: Record = forget) -> None:
    """Gradients of the captured steps, and losses and norms of all."""
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
