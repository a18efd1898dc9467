"""Law 6: a checkpoint written under one plan goes on under any other, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.checkpoint.store import CheckpointStore
from hetero.data.source import Prepared
from tests.distributed.beside_plain import Record
from tests.distributed.cases import a1, k1, n2, pipeline, plan
from tests.distributed.fleet import Job, Run, Standing
from tests.distributed.laws import series_deviation
from tests.distributed.plain import PlainModel, PlainTraining
from tests.distributed.replans import (
    ADAMW,
    CHAIN,
    EXPERTS,
    FLOAT16,
    LIMIT,
    MOMENTUM,
    NARROW,
    PAIRS,
    SMALL_SHARED,
    STEPS,
    TIED,
    Uninterrupted,
    is_as_undisturbed,
)

SAVED = 10

HALF_IN_HOSTS = plan(pipeline(6, n2(0, 3), a1(3, 6, optimizer="host"), micro_batch=3), pipeline(2, k1(0, 6)))
IN_EVERY_RUN = (
    "tp and momentum", "shares", "adapters, two families added", "experts spread to split, a family removed",
)  # fmt: skip
"""With two other rules of update than the chain, which changes whatever these pairs do."""


def _marks(pair: str) -> list[pytest.MarkDecorator]:
    return [] if pair in IN_EVERY_RUN else [pytest.mark.exhaustive]


@pytest.fixture(scope="module")
def uninterrupted(text: Prepared) -> Uninterrupted:
    return Uninterrupted(text)


def test_a_plan_for_each_step(fleet: Standing, text: Prepared, tmp_path: Path, record_property: Record) -> None:
    runs: list[Run] = []
    for step, each in enumerate(CHAIN):
        before, after = (None if step == 0 else tmp_path / f"{step}"), tmp_path / f"{step + 1}"
        runs.append(fleet.train(TIED, each, start=step, until=step + 1, begin_from=before, save_to=after))
    is_as_undisturbed(runs, CheckpointStore(after), *Uninterrupted(text, len(CHAIN)).of(TIED), record_property)


@pytest.mark.parametrize("pair", [pytest.param(pair, marks=_marks(pair)) for pair in PAIRS])
def test_goes_on_under_another_plan(
    pair: str, fleet: Standing, uninterrupted: Uninterrupted, tmp_path: Path, record_property: Record
) -> None:
    job, before, after = PAIRS[pair]
    first = fleet.train(job, before, until=SAVED, save_to=tmp_path / "first")
    second = fleet.train(job, after, start=SAVED, begin_from=tmp_path / "first", save_to=tmp_path / "second")
    store = CheckpointStore(tmp_path / "second")
    is_as_undisturbed([first, second], store, *uninterrupted.of(job), record_property)


@pytest.mark.parametrize(
    "job", [ADAMW, pytest.param(NARROW, marks=pytest.mark.exhaustive), FLOAT16], ids=["float32", "bfloat16", "float16"]
)
def test_goes_on_to_the_bit_under_the_same_plan(job: Job, fleet: Standing, tmp_path: Path) -> None:
    first = fleet.train(job, SMALL_SHARED, until=4, save_to=tmp_path)
    second = fleet.train(job, SMALL_SHARED, start=4, until=6, begin_from=tmp_path)
    whole = fleet.train(job, SMALL_SHARED, until=6)
    assert first.losses + second.losses == whole.losses
    assert first.norms + second.norms == whole.norms


def test_what_is_saved_beside_the_steps_is_the_state_before_them_wherever_it_goes(
    fleet: Standing, tmp_path: Path
) -> None:
    """Half of the chips update in their hosts' memory. All of it goes to a store that knows no folders."""
    store = f"local://{tmp_path}/store"
    whole = fleet.train(ADAMW, HALF_IN_HOSTS, until=6, save_to=store, save_every=2)
    assert CheckpointStore(store).steps() == [2, 4, 6]
    rest = fleet.train(ADAMW, HALF_IN_HOSTS, start=2, until=6, begin_from=store)
    assert (rest.losses, rest.norms) == (whole.losses[2:], whole.norms[2:])


@pytest.mark.parametrize(
    "job",
    [ADAMW, MOMENTUM, TIED, pytest.param(EXPERTS, marks=pytest.mark.exhaustive)],
    ids=["adamw", "momentum", "tied", "experts"],
)
def test_forgotten_moments_would_show(job: Job, text: Prepared, uninterrupted: Uninterrupted) -> None:
    """The tolerances are narrow enough to miss the optimizer's state, if a checkpoint had lost it."""
    training = PlainTraining(job, text, PlainModel(job.dimensions, job.train.seed))
    list(training.steps(SAVED))
    training.forget()
    losses = [step.loss for step in training.steps(STEPS, start=SAVED)]
    wanted = [step.loss for step in uninterrupted.of(job)[0][SAVED:]]
    assert series_deviation(losses, wanted).deviation > 10 * LIMIT.loss
