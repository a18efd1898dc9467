"""What the balancer reckons that a change of plan moves, against what ranks plan to move, tensor by tensor."""

from __future__ import annotations

import pytest

from balancer.plan.plan import Plan
from balancer.rebalance.moves import move
from hetero.engine.state.optimizer import moment_kinds
from hetero.engine.state.routes import Side, crossing_bytes, rounds
from hetero.engine.wiring import tensor_holdings
from hetero.words.spec import RunSpec, TextRun
from tests.distributed.fleet import POOLS, Job
from tests.distributed.replans import ADAMW, ASCEND, CHIP, MIXED, NARROW, NVIDIA, SHARED, SMALL_SHARED, THREE

WITHIN = 0.1
PAIRS = {
    "a family added": (ADAMW, NVIDIA, MIXED),
    "one for another": (ADAMW, NVIDIA, ASCEND),
    "two removed": (ADAMW, THREE, CHIP),
    "shares of other pools": (ADAMW, SHARED, SMALL_SHARED),
    "bfloat16": (NARROW, MIXED, SHARED),
    "bfloat16, removed": (NARROW, THREE, NVIDIA),
}


def _side(job: Job, plan: Plan) -> Side:
    text = TextRun(path="", fingerprint="", seq_len=16, vocab=257)
    spec = RunSpec(epoch=0, model=job.dimensions, train=job.train, text=text, plan=plan, pools=POOLS, steps=1)
    return Side(tensor_holdings(spec), plan.precisions(), moment_kinds(job.train.optimizer))


@pytest.mark.parametrize("pair", PAIRS)
def test_bytes_are_foreseen(pair: str) -> None:
    job, *plans = PAIRS[pair]
    before, after = (job.complete(plan) for plan in plans)
    moved = crossing_bytes(rounds(_side(job, before), _side(job, after)))
    assert move(before, after, job.problem).nbytes == pytest.approx(moved, rel=WITHIN)
