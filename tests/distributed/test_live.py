"""Law 12: what a run has learnt moves from plan to plan while its ranks stand, as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hetero.checkpoint.store import CheckpointStore
from hetero.data.source import Prepared
from tests.distributed.cases import a1, a2, a4, k1, k2, n1, n2, n4, pipeline, plan
from tests.distributed.fleet import Job, Run, Standing
from tests.distributed.laws import series_deviation
from tests.distributed.replans import (
    ADAMW,
    FLOAT16,
    LIMIT,
    NARROW,
    PAIRS,
    SHARED,
    SMALL_SHARED,
    STATE_LIMIT,
    TIED,
    Uninterrupted,
    state_deviation,
)

Record = Callable[[str, object], None]
MOVED, STEPS = 6, 12

OTHER_OWNERS = plan(pipeline(5, n4(0, 6, owns=[(0, 1)]), micro_batch=5), pipeline(3, k2(0, 6, owns=[(1, 6)])))
OWNERS = {"owners": (ADAMW, SHARED, OTHER_OWNERS)}

CHAIN = (
    plan(pipeline(8, n2(0, 3), n2(3, 6), micro_batch=4)),
    plan(pipeline(8, n2(0, 2), a4(2, 6), micro_batch=4)),
    plan(pipeline(8, k1(0, 1), a2(1, 4), n4(4, 6), micro_batch=4)),
    plan(pipeline(8, k2(0, 6), micro_batch=4)),
    plan(pipeline(5, n4(0, 6), micro_batch=5), pipeline(3, k2(0, 6))),
    plan(pipeline(2, n4(0, 6), micro_batch=2), pipeline(6, k2(0, 6), micro_batch=3)),
    plan(pipeline(2, n4(0, 6, owns=[(0, 1)])), pipeline(6, k2(0, 6, owns=[(1, 6)]), micro_batch=3)),
    plan(pipeline(8, n1(0, 2, 4, 6), n1(2, 4), micro_batch=2)),
    plan(pipeline(3, n1(0, 6)), pipeline(3, n1(0, 6)), pipeline(2, a1(0, 5), a1(5, 6))),
    plan(pipeline(2, a2(0, 3), k1(3, 6)), pipeline(6, n2(0, 5), k1(5, 6), micro_batch=3)),
    plan(pipeline(8, n4(0, 2), a1(2, 6), micro_batch=4)),
    plan(pipeline(8, n4(0, 2), a1(2, 6), micro_batch=4)),
)
"""Families come and go, chips stand idle; sizes, cuts, chunks, shares, owners, copies change; at last nothing does."""


@pytest.fixture(scope="module")
def undisturbed(text: Prepared) -> Uninterrupted:
    return Uninterrupted(text, STEPS)


def test_a_plan_for_each_step(
    fleet: Standing, undisturbed: Uninterrupted, tmp_path: Path, record_property: Record
) -> None:
    runs = []
    for step, each in enumerate(CHAIN):
        last = step == STEPS - 1
        runs.append(
            fleet.train(TIED, each, start=step, until=step + 1, live=step > 0, save_to=tmp_path if last else None)
        )
    _check(TIED, runs, undisturbed, CheckpointStore(tmp_path), record_property)
    assert not any(sum(moved.sent_bytes.values()) for moved in runs[-1].moved), "nothing had to move"


@pytest.mark.exhaustive
@pytest.mark.parametrize("pair", PAIRS | OWNERS)
def test_goes_on_under_another_plan(
    pair: str, fleet: Standing, undisturbed: Uninterrupted, tmp_path: Path, record_property: Record
) -> None:
    job, before, after = (PAIRS | OWNERS)[pair]
    first = fleet.train(job, before, until=MOVED)
    second = fleet.train(job, after, start=MOVED, until=STEPS, live=True, save_to=tmp_path)
    _check(job, [first, second], undisturbed, CheckpointStore(tmp_path), record_property)


@pytest.mark.parametrize("job", [NARROW, FLOAT16], ids=["bfloat16", "float16"])
def test_nothing_is_lost_where_pools_compute_in_less(job: Job, fleet: Standing) -> None:
    """Away and back again: to the bit, loss scale included."""
    away = plan(pipeline(6, a2(0, 5), k1(5, 6), micro_batch=3), pipeline(2, n1(0, 6), micro_batch=2))
    whole = fleet.train(job, SMALL_SHARED, until=4)
    first = fleet.train(job, SMALL_SHARED, until=2)
    fleet.train(job, away, start=2, until=2, live=True)
    second = fleet.train(job, SMALL_SHARED, start=2, until=4, live=True)
    assert first.losses + second.losses == whole.losses
    assert first.norms + second.norms == whole.norms


def _check(
    job: Job, runs: list[Run], undisturbed: Uninterrupted, store: CheckpointStore, record_property: Record
) -> None:
    steps, training = undisturbed.of(job)
    losses = series_deviation([loss for run in runs for loss in run.losses], [step.loss for step in steps])
    norms = series_deviation([norm for run in runs for norm in run.norms], [step.norm for step in steps])
    state = state_deviation(store, training, STEPS)
    for name, worst in (("loss", losses), ("norm", norms), ("state", state)):
        record_property(name, worst.deviation)
    assert losses.deviation <= LIMIT.loss, losses
    assert norms.deviation <= LIMIT.norm, norms
    assert state.deviation <= STATE_LIMIT, state
    for moved in (moved for run in runs for moved in run.moved):
        assert sum(moved.sent_bytes.values()) == moved.planned_bytes
