"""Law 12: what a run has learnt moves from plan to plan while its ranks stand, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.checkpoint.store import CheckpointStore
from hetero.data.source import Prepared
from tests.distributed.beside_plain import Record
from tests.distributed.cases import a2, k1, k2, n1, n4, pipeline, plan
from tests.distributed.fleet import Job, Run, Standing
from tests.distributed.laws import series_deviation
from tests.distributed.replans import (
    ADAMW,
    CHAIN,
    FLOAT16,
    LIMIT,
    NARROW,
    NARROW_ADAPTED,
    PAIRS,
    SHARED,
    SMALL_SHARED,
    TIED,
    Uninterrupted,
    is_as_undisturbed,
)

MOVED, STEPS = 6, len(CHAIN)

OTHER_OWNERS = plan(pipeline(5, n4(0, 6, owns=[(0, 1)]), micro_batch=5), pipeline(3, k2(0, 6, owns=[(1, 6)])))
OWNERS = {"owners": (ADAMW, SHARED, OTHER_OWNERS)}


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


def test_a_run_that_is_held_ends_after_the_same_step_everywhere_and_goes_on_as_undisturbed(
    fleet: Standing, undisturbed: Uninterrupted
) -> None:
    """Whatever step its ranks were in; leases reach further, and what was on its way is void."""
    first = fleet.train(TIED, CHAIN[2], until=STEPS, hold_at=1)
    held = len(first.losses)
    assert 2 < held <= STEPS
    second = fleet.train(TIED, CHAIN[5], start=held, until=STEPS, live=True)
    losses = series_deviation(first.losses + second.losses, [step.loss for step in undisturbed.of(TIED)[0]])
    assert losses.deviation <= LIMIT.loss, losses


@pytest.mark.exhaustive
@pytest.mark.parametrize("pair", PAIRS | OWNERS)
def test_goes_on_under_another_plan(
    pair: str, fleet: Standing, undisturbed: Uninterrupted, tmp_path: Path, record_property: Record
) -> None:
    job, before, after = (PAIRS | OWNERS)[pair]
    first = fleet.train(job, before, until=MOVED)
    second = fleet.train(job, after, start=MOVED, until=STEPS, live=True, save_to=tmp_path)
    _check(job, [first, second], undisturbed, CheckpointStore(tmp_path), record_property)


@pytest.mark.parametrize(
    "job",
    [pytest.param(NARROW, marks=pytest.mark.exhaustive), FLOAT16, NARROW_ADAPTED],
    ids=["bfloat16", "float16", "adapters"],
)
def test_nothing_is_lost_where_pools_compute_in_less(job: Job, fleet: Standing) -> None:
    """Away and back again: to the bit, loss scale included."""
    there = a2(0, 5, optimizer="host"), k1(5, 6)
    away = plan(pipeline(6, *there, micro_batch=3), pipeline(2, n1(0, 6, optimizer="host"), micro_batch=2))
    whole = fleet.train(job, SMALL_SHARED, until=4)
    first = fleet.train(job, SMALL_SHARED, until=2)
    fleet.train(job, away, start=2, until=2, live=True)
    second = fleet.train(job, SMALL_SHARED, start=2, until=4, live=True)
    assert first.losses + second.losses == whole.losses
    assert first.norms + second.norms == whole.norms


def _check(
    job: Job, runs: list[Run], undisturbed: Uninterrupted, store: CheckpointStore, record_property: Record
) -> None:
    is_as_undisturbed(runs, store, *undisturbed.of(job), record_property)
    for moved in (moved for run in runs for moved in run.moved):
        assert sum(moved.sent_bytes.values()) == moved.planned_bytes
