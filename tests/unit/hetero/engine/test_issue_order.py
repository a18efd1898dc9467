"""No plan makes the chips of a pool wait for each other in a circle, by the law that real chips obey.

An order depends on the plan alone, so this is a proof without processes: each rank's is recorded, and all are replayed.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.chip import load_chip
from backends.strict import ROOM
from balancer.completion.completion import complete
from balancer.cost.topology import PoolSpec, Topology
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.schedule.action import Kind
from balancer.schedule.lowering import actions_of
from balancer.schedule.registry import schedules
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.words.options import EvalOptions, TrainOptions
from hetero.words.pool import Pool
from hetero.words.spec import RunSpec, TextRun
from tests.examples import out_of_100
from tests.unit.hetero.engine.issue_order import SEQ_LEN, Order, Stuck, orders_of, replay

CHIPS = 8
ONE_CHUNK = ["1f1b", "gpipe", "zero-bubble"]
"""On each stage, unless a plan has more."""
SCHEDULES = schedules()


def spec_of(plan: Plan, tied: bool = False, bucket_mib: float = 1e-4) -> RunSpec:
    dims = Dimensions(layers=3, hidden=8, heads=4, kv_heads=2, ffn=6, vocab=11, tie_embeddings=tied)
    batch = sum(pipeline.share * pipeline.replicas for pipeline in plan.pipelines)
    train = TrainOptions(steps=2, global_batch=batch, replica_check_every=0)
    model, chip = architecture(dims), load_chip("A800-80G")
    pool = PoolSpec("nvidia", chip, CHIPS, CHIPS, chip.memory_bytes, precision="float32")
    workload = model.workload(SEQ_LEN, batch, "float32")
    return RunSpec(
        epoch=0,
        model=dims,
        train=train,
        text=TextRun(path="", fingerprint="", seq_len=SEQ_LEN, vocab=11),
        plan=complete(plan, Problem(Topology((pool,), ()), workload, legal_tp=model.legal_tp)),
        pools={"nvidia": Pool("nvidia", chip.family, chip.name, CHIPS)},
        bridge={"sync_bucket_mib": bucket_mib},  # type: ignore[arg-type]
        steps=2,
        evaluation=EvalOptions(every=1, batches=1),
    )


@st.composite
def _pipelines(draw: st.DrawFn, chips: int, schedule: str) -> PipelinePlan:
    """Up to four stages of up to four chips each, with one chunk or two, and any warm-up that a schedule takes."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 4]), min_size=1, max_size=4).filter(lambda s: sum(s) <= chips))
    chunks = draw(st.integers(1, 2)) if len(sizes) > 1 else 1
    cuts = sorted(draw(st.sets(st.integers(1, 7), min_size=len(sizes) * chunks - 1, max_size=len(sizes) * chunks - 1)))
    ranges = list(zip((0, *cuts), (*cuts, 8), strict=True))
    if schedule == "v":
        ranges[len(sizes) :] = reversed(ranges[len(sizes) :])
    share = draw(st.integers(1, 6))
    deeper = draw(st.integers(0, 4)) if chunks == 1 and schedule in ONE_CHUNK else None
    optimizers = [draw(st.sampled_from(["chip", "chip", "host"])) for _ in sizes]
    stages = tuple(
        StagePlan(
            pool="nvidia",
            tp=tp,
            sequence_parallel=tp > 1 and draw(st.booleans()),
            tp_slices=draw(st.sampled_from([1, 2])) if tp == 2 else 1,
            units=tuple(ranges[s :: len(sizes)]),
            warmup=None if deeper is None else 1 + (len(sizes) - 1 - s) * (1 + deeper),
            optimizer=optimizers[s],
        )
        for s, tp in enumerate(sizes)
    )
    return PipelinePlan(share=share, stages=stages)


@st.composite
def _plans(draw: st.DrawFn) -> Plan:
    found, free, schedule = [], CHIPS, draw(st.sampled_from(SCHEDULES))
    for _ in range(draw(st.integers(1, 3))):
        if free:
            found.append(draw(_pipelines(free, schedule)))
            free -= sum(stage.tp for stage in found[-1].stages)
    return Plan(schedule=schedule, pipelines=tuple(found))


@pytest.mark.slow
@out_of_100(20)
@given(_plans(), st.booleans(), st.sampled_from([1e-6, 1e-3, 1.0]))
def test_no_chips_wait_in_a_circle(plan: Plan, tied: bool, bucket_mib: float) -> None:
    replay(orders_of(spec_of(plan, tied, bucket_mib), "nvidia", CHIPS), ROOM)


@pytest.mark.slow
def test_weight_gradients_that_come_later_are_sent_off_in_one_order() -> None:
    """Two copies of a line of groups, whose chips have rows and whose backwards are two actions."""
    halves = ((0, 4), (4, 8))
    stages = tuple(
        StagePlan(pool="nvidia", tp=2, sequence_parallel=True, tp_slices=2, units=(half,)) for half in halves
    )
    spec = spec_of(Plan(schedule="zero-bubble", pipelines=(PipelinePlan(share=3, stages=stages),) * 2))
    lists = actions_of(spec.plan.pipelines[0], spec.plan.schedule)
    assert all(any(action.kind is Kind.W for action in actions) for actions in lists)
    replay(orders_of(spec, "nvidia", CHIPS), ROOM)


def _order(*events: tuple[str, str, tuple[int, ...]]) -> Order:
    order = Order(met={"a", "b"})
    for row, kind, ends in events:
        order.issue(row, kind, ends)
    return order


def test_what_the_replay_sees() -> None:
    both = (0, 1)
    there, back = ("a", "there", both), ("a", "back", both)
    replay({0: _order(there, back), 1: _order(there, back)}, ROOM)
    with pytest.raises(Stuck, match="these meet"):
        replay({0: _order(there, back), 1: _order(back, there)}, ROOM)
    across = ("b", "other", both)
    replay({0: _order(there, across), 1: _order(across, there)}, 2)
    with pytest.raises(Stuck):
        replay({0: _order(there, across), 1: _order(across, there)}, 1)
