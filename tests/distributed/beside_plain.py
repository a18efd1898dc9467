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


def trains_as_plain(case: Case, fleet: Standing, text: Prepared, folder: Path, record: Record = forget) -> Run:
    """Every step of the case, from weights without special values, which `folder` holds; held-out losses where it asks
    for them."""
    model = PlainModel(case.job.dimensions, case.job.train.seed, case.job.train.tuning).unsettle()
    model.save(folder)
    steps = list(range(case.job.train.steps))
    run = fleet.train(case.job, case.plan, begin_from=folder, capture=steps, text=text)
    training, plain, held_out = PlainTraining(case.job, text, model), [], {}
    for done, step in enumerate(training.steps(len(steps)), 1):
        plain.append(step)
        if done in run.eval_losses:
            held_out[done] = training.validation_loss()
    is_as_plain(case, run, plain, steps, record)
    is_validated_as_plain(case, run, held_out, record)
    return run


def is_validated_as_plain(case: Case, run: Run, held_out: dict[int, float], record: Record = forget) -> None:
    """After every so many steps, and after the last."""
    every, steps = case.job.evaluation.every, case.job.train.steps
    assert list(run.eval_losses) == [
        done for done in range(1, steps + 1) if every and (done % every == 0 or done == steps)
    ]
    if held_out:
        found = series_deviation(list(run.eval_losses.values()), list(held_out.values()))
        record("held out", found.deviation)
        assert found.deviation <= TOLERANCES[case.job.coarsest].loss, found


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
