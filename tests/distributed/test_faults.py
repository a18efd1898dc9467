"""The laws are able to fail: planted faults, each caught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancer.plan.plan import Plan
from hetero.cluster.errors import RankFailure
from hetero.data.source import Prepared
from hetero.models.dimensions import Dimensions
from hetero.words.options import TrainOptions
from tests.distributed.cases import ADAMW, SMALL, a2, n1, pipeline
from tests.distributed.faulty import DEATH, DEATH_STATUS, DOUBLED, MORTAL, SKIPPED_STEP
from tests.distributed.fleet import POOLS, Job, Run, Standing
from tests.distributed.laws import TOLERANCES, series_deviation, tensor_deviation
from tests.distributed.plain import PlainModel, PlainStep, PlainTraining

LIMIT = TOLERANCES["float32"]
STEPS = SKIPPED_STEP + 2


def _job(replica_check_every: int = 0) -> Job:
    train = TrainOptions(steps=STEPS, global_batch=6, optimizer=ADAMW, replica_check_every=replica_check_every)
    return Job(Dimensions(layers=2, **SMALL), train)


def _plan(fault: str) -> Plan:
    return Plan(
        job_fingerprint=fault,
        pipelines=(pipeline(4, n1(0, 3), n1(3, 6), micro_batch=2), pipeline(2, a2(0, 6, recompute="full"))),
    )


def _fleet(text: Prepared, folder: Path) -> Standing:
    return Standing(text, folder, {name: replace(POOLS[name], count=2) for name in ("nvidia", "ascend")})


@pytest.fixture(scope="module")
def faulty(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with _fleet(text, tmp_path_factory.mktemp("faulty")).up(rank="tests.distributed.faulty:main") as standing:
        yield standing


@pytest.fixture(scope="module")
def plain(text: Prepared) -> list[PlainStep]:
    return list(PlainTraining(_job(), text, PlainModel(_job().dimensions, 0)).steps(STEPS))


def _losses(run: Run, plain: list[PlainStep]) -> float:
    return series_deviation(run.losses, [step.loss for step in plain]).deviation


def _norms(run: Run, plain: list[PlainStep]) -> float:
    return series_deviation(run.norms, [step.norm for step in plain]).deviation


def test_without_a_fault_the_laws_hold(faulty: Standing, plain: list[PlainStep]) -> None:
    run = faulty.train(_job(), _plan("none"), capture=[0])
    assert tensor_deviation(run.gradients(0), plain[0].gradients, LIMIT.floor).deviation <= LIMIT.gradient
    assert _losses(run, plain) <= LIMIT.loss
    assert _norms(run, plain) <= LIMIT.norm


def test_a_doubled_gradient(faulty: Standing, plain: list[PlainStep]) -> None:
    """Laws 1 and 2. The first names the tensor."""
    run = faulty.train(_job(), _plan("a gradient doubled"), capture=[0])
    worst = tensor_deviation(run.gradients(0), plain[0].gradients, LIMIT.floor)
    assert worst.deviation > 1000 * LIMIT.gradient
    assert worst.place == DOUBLED
    assert _norms(run, plain) > LIMIT.norm


def test_a_dropout_that_backward_does_not_repeat(faulty: Standing, plain: list[PlainStep]) -> None:
    """Law 1: the loss of the step is right, and gradients are those of another model."""
    run = faulty.train(_job(), _plan("another dropout"), capture=[0], until=1)
    assert series_deviation(run.losses, [plain[0].loss]).deviation <= LIMIT.loss
    worst = tensor_deviation(run.gradients(0), plain[0].gradients, LIMIT.floor)
    assert worst.deviation > 1000 * LIMIT.gradient


@pytest.mark.parametrize("fault", ["", ", one dropped", ", one made twice"])
def test_a_weight_gradient_dropped_or_made_twice(fault: str, faulty: Standing, plain: list[PlainStep]) -> None:
    """One of four micro-batches'. Law 1 names the tensor."""
    run = faulty.train(_job(), _plan(f"W two later{fault}"), until=1, capture=[0])
    worst = tensor_deviation(run.gradients(0), plain[0].gradients, LIMIT.floor)
    assert (worst.deviation > 1000 * LIMIT.gradient) == bool(fault), worst
    if fault:
        assert worst.place == DOUBLED
    else:
        assert worst.deviation <= LIMIT.gradient


def test_a_halved_norm(faulty: Standing, plain: list[PlainStep]) -> None:
    """Laws 1 and 2, though the owner's next parameters mend the copy before law 9 looks."""
    run = faulty.train(_job(replica_check_every=1), _plan("a norm halved"), capture=[0])
    assert tensor_deviation(run.gradients(0), plain[0].gradients, LIMIT.floor).deviation > 100 * LIMIT.gradient
    assert _losses(run, plain) > LIMIT.loss
    assert _norms(run, plain) > LIMIT.norm


def test_a_skipped_update(faulty: Standing, plain: list[PlainStep]) -> None:
    """Law 2, from the step after it on."""
    run = faulty.train(_job(), _plan("an update skipped"))
    assert _losses(run, plain) > LIMIT.loss
    sound = SKIPPED_STEP + 1
    assert series_deviation(run.losses[:sound], [step.loss for step in plain[:sound]]).deviation <= LIMIT.loss


def test_stale_parameters(faulty: Standing, plain: list[PlainStep]) -> None:
    """Law 2, from the second step on, though the copies are right before law 9 looks."""
    run = faulty.train(_job(replica_check_every=STEPS), _plan("parameters that are stale"))
    deviations = [abs(mine / step.loss - 1) for mine, step in zip(run.losses, plain, strict=True)]
    assert deviations[0] <= LIMIT.loss
    assert min(deviations[1:]) > LIMIT.loss


def test_a_death_while_state_moves(text: Prepared, tmp_path: Path) -> None:
    """Named like any other."""
    moved = Plan(job_fingerprint=DEATH, pipelines=(pipeline(6, a2(0, 3), n1(3, 6)),))
    with _fleet(text, tmp_path).up(rank="tests.distributed.faulty:main") as standing:
        standing.train(_job(), _plan("none"), until=1)
        with pytest.raises(RankFailure, match=f"(?s){MORTAL}.*{DEATH_STATUS}"):
            standing.train(_job(), moved, start=1, live=True)


def test_drifted_replicas(faulty: Standing) -> None:
    """Law 9 ends the run at the very step, and says where. The fleet ends with it, so no test may come after."""
    drift = rf"ReplicaDrift.* after step {SKIPPED_STEP} the copies held by pipeline 0 stage 0, pipeline 1 stage 0"
    with pytest.raises(RankFailure, match=drift):
        faulty.train(_job(replica_check_every=1), _plan("an update skipped"))
