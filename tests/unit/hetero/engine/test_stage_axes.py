"""A stage's ranks are asked for by axis: with another one beside `tp`, state, groups and first values follow."""

from __future__ import annotations

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from bridge.layout.axes import Axes
from bridge.rank import RankId
from hetero.engine.state.origin import begin
from hetero.engine.state.state import State
from hetero.engine.step.stage import place_of
from hetero.engine.wiring import EpochGroups, tensor_holdings
from hetero.models.dimensions import Dimensions
from hetero.words.options import TrainOptions
from hetero.words.spec import RunSpec, TextRun
from tests.unit.hetero.engine.issue_order import Order, RecordedWorld

TINY = Dimensions(layers=1, hidden=16, heads=4, kv_heads=2, ffn=32, vocab=50)
UNITS = (0, 4)


def spec_of(tp: int) -> RunSpec:
    stage = StagePlan(
        pool="a", tp=tp, units=(UNITS,), chips=tuple(range(tp)), precision="float32", warmup=1, owns=(UNITS,)
    )
    return RunSpec(
        epoch=0, model=TINY, train=TrainOptions(steps=1, global_batch=1), steps=1, pools={},
        text=TextRun(path="", fingerprint="", seq_len=4, vocab=TINY.vocab),
        plan=Plan(pipelines=(PipelinePlan(share=1, stages=(stage,)),)),
    )  # fmt: skip


def first_values(spec: RunSpec, index: int) -> State:
    return begin(spec, tensor_holdings(spec), RankId("a", index), CpuBackend())


@pytest.fixture
def two_by_two(monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """Four ranks of a stage, of which two at a time share the work."""
    monkeypatch.setattr(StagePlan, "axes", property(lambda stage: Axes.of(other=stage.tp // 2, tp=2)))
    return spec_of(4)


@pytest.mark.parametrize(
    ("index", "group", "tp_rank"), [(0, (0, 1), 0), (1, (0, 1), 1), (2, (2, 3), 0), (3, (2, 3), 1)]
)
def test_groups_lie_along_an_axis(two_by_two: RunSpec, index: int, group: tuple[int, ...], tp_rank: int) -> None:
    me = RankId("a", index)
    world = RecordedWorld(me, 4, Order())
    made = EpochGroups(two_by_two, world, tensor_holdings(two_by_two)).tensor  # type: ignore[arg-type]
    assert made.communicator is not None
    assert (made.communicator.members, made.size, made.rank) == (group, 2, tp_rank)
    place = place_of(two_by_two.plan, me)
    assert place is not None
    assert place.along("tp") == tp_rank
    assert [tuple(rank.index for rank in ranks) for ranks in place.groups("tp")] == [(0, 1), (2, 3)]


def test_what_tp_cuts_is_the_same_along_the_other_axis(two_by_two: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [first_values(two_by_two, index) for index in range(4)]
    monkeypatch.undo()
    narrow = spec_of(2)
    for index, state in enumerate(wide):
        plain = first_values(narrow, index % 2)
        assert state.values.keys() == plain.values.keys()
        assert all(torch.equal(value, plain.values[name]) for name, value in state.values.items())
    owned = [name for state in wide for name in state.masters]
    parts = [name for index in range(2) for name in first_values(narrow, index).masters]
    assert sorted(owned) == sorted(parts), "each part is updated once"
