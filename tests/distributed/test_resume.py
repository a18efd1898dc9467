"""Law 6: a checkpoint written under one plan goes on under any other, as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hetero.checkpoint.store import CheckpointStore
from hetero.data.source import Prepared
from tests.distributed.fleet import Job, Standing
from tests.distributed.laws import series_deviation
from tests.distributed.plain import PlainModel, PlainTraining
from tests.distributed.replans import (
    ADAMW,
    FLOAT16,
    LIMIT,
    MOMENTUM,
    NARROW,
    PAIRS,
    SMALL_SHARED,
    STATE_LIMIT,
    STEPS,
    TIED,
    Uninterrupted,
    state_deviation,
)

Record = Callable[[str, object], None]
SAVED = 10


@pytest.fixture(scope="module")
def uninterrupted(text: Prepared) -> Uninterrupted:
    return Uninterrupted(text)


@pytest.mark.parametrize("pair", PAIRS)
def test_goes_on_under_another_plan(
    pair: str, fleet: Standing, uninterrupted: Uninterrupted, tmp_path: Path, record_property: Record
) -> None:
    job, before, after = PAIRS[pair]
    first = fleet.train(job, before, until=SAVED, save_to=tmp_path / "first")
    second = fleet.train(job, after, start=SAVED, begin_from=tmp_path / "first", save_to=tmp_path / "second")
    steps, training = uninterrupted.of(job)
    losses = series_deviation(first.losses + second.losses, [step.loss for step in steps])
    norms = series_deviation(first.norms + second.norms, [step.norm for step in steps])
    state = state_deviation(CheckpointStore(tmp_path / "second"), training)
    record_property("loss", losses.deviation)
    record_property("norm", norms.deviation)
    record_property("state", state.deviation)
    assert losses.deviation <= LIMIT.loss, losses
    assert norms.deviation <= LIMIT.norm, norms
    assert state.deviation <= STATE_LIMIT, state


@pytest.mark.parametrize("job", [ADAMW, NARROW, FLOAT16], ids=["float32", "bfloat16", "float16"])
def test_goes_on_to_the_bit_under_the_same_plan(job: Job, fleet: Standing, tmp_path: Path) -> None:
    first = fleet.train(job, SMALL_SHARED, until=SAVED, save_to=tmp_path)
    second = fleet.train(job, SMALL_SHARED, start=SAVED, begin_from=tmp_path)
    whole = fleet.train(job, SMALL_SHARED)
    assert first.losses + second.losses == whole.losses
    assert first.norms + second.norms == whole.norms


@pytest.mark.parametrize("job", [ADAMW, MOMENTUM, TIED], ids=["adamw", "momentum", "tied"])
def test_forgotten_moments_would_show(job: Job, text: Prepared, uninterrupted: Uninterrupted) -> None:
    """The tolerances are narrow enough to miss the optimizer's state, if a checkpoint had lost it."""
    training = PlainTraining(job, text, PlainModel(job.dimensions, job.train.seed))
    list(training.steps(SAVED))
    training.forget()
    losses = [step.loss for step in training.steps(STEPS, start=SAVED)]
    wanted = [step.loss for step in uninterrupted.of(job)[0][SAVED:]]
    assert series_deviation(losses, wanted).deviation > 10 * LIMIT.loss
