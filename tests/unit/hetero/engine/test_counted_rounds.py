"""Plans count the rounds that ranks make: the same units in each, whatever tp the copies of a pool have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends.chip import load_chip
from balancer.completion.completion import complete
from balancer.cost.topology import PoolSpec, Topology
from balancer.memory.sync_memory import gradient_rounds, shared_inside
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from bridge.rank import RankId
from hetero.engine.state.buckets import in_buckets, in_rounds
from hetero.engine.step.stage import places
from hetero.engine.wiring import sharing, tensor_holdings
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.words.options import TrainOptions

DIMS = Dimensions(layers=3, hidden=8, heads=4, kv_heads=2, ffn=6, vocab=11)
ALL = (0, 8)


def pipeline(*stages: tuple[int, tuple[int, int]]) -> PipelinePlan:
    return PipelinePlan(share=2, stages=tuple(StagePlan(pool="n", tp=tp, units=units) for tp, units in stages))


@pytest.mark.parametrize("bucket_bytes", [1, 500, 1000, 1066, 1 << 20])
@pytest.mark.parametrize(
    "pipelines",
    [
        [pipeline((1, ALL))] * 2,
        [pipeline((2, ALL))] * 2,
        [pipeline((2, ALL)), pipeline((1, ALL)), pipeline((1, ALL))],
        [pipeline((1, (0, 3)), (1, (3, 8)))] * 2,
        [pipeline((2, (0, 3)), (1, (3, 8))), pipeline((1, ALL))],
    ],
    ids=["dp 2", "tp 2", "tp 2 and 1", "pp 2", "tp 2 to 1"],
)
def test_plans_count_the_rounds_that_ranks_make(pipelines: list[PipelinePlan], bucket_bytes: int) -> None:
    chip = load_chip("A800-80G")
    pool = PoolSpec("n", chip, 8, 8, chip.memory_bytes)
    work = architecture(DIMS).workload(16, 2 * len(pipelines), "float32")
    plan = complete(Plan(pipelines=tuple(pipelines)), Problem(Topology((pool,), ()), work))
    tensors = tensor_holdings(_of(plan))
    backwards = sorted(tensors, key=lambda holding: -holding.unit)
    buckets = list(enumerate(in_buckets(backwards, bucket_bytes)))
    for place in places(plan):
        me = place.ranks[0]
        counted = gradient_rounds(plan, (place.pipeline, place.stage), _shared(plan, place, work), bucket_bytes)
        made = in_rounds(buckets, me, _members(tensors, me), bucket_bytes)
        assert [_units_counted(one) for one in counted] == [_units_made(one) for together, one in made if together]


def _of(plan: Plan) -> Any:
    return SimpleNamespace(model=DIMS, plan=plan, train=TrainOptions(steps=1, global_batch=1))


def _shared(plan: Plan, place: Any, work: Any) -> Any:
    return shared_inside(work, plan, (place.pipeline, place.stage))


def _members(tensors: Any, me: RankId) -> Any:
    [found] = [one for one in sharing(tensors, me.pool) if me.index in one]
    return SimpleNamespace(members=tuple(sorted(found)), device=torch.device("cpu")) if len(found) > 1 else None


def _units_counted(one: Any) -> list[set[int]]:
    return [{use[2] for c in bucket for uses in c.uses.values() for use in uses} for bucket in one]


def _units_made(one: Any) -> list[set[int]]:
    return [{holding.unit for holding in bucket} for _, bucket in one]
