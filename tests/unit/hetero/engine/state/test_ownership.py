"""Each piece of state has one owner; every other copy adds to its gradient once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from bridge.layout.axes import Axes
from bridge.layout.layout import Region, TensorLayout
from bridge.layout.reshard import copies
from bridge.rank import RankId
from hetero.engine.state.ownership import Holder, Holding, Ways, alike, contributions, first_replicas, holdings
from tests.unit.hetero.engine.placements import SHAPES, numbered, placements, shard

TIED = "units.0.embedding.weight"


def _stage(pool: str, chips: tuple[int, ...], units: tuple, owns: tuple = ()) -> StagePlan:
    return StagePlan(pool=pool, tp=len(chips), chips=chips, units=units, owns=owns)


def _plan(*pipelines: tuple[StagePlan, ...]) -> Plan:
    return Plan(pipelines=[PipelinePlan(share=1, stages=stages) for stages in pipelines])


def _layouts() -> dict[tuple[int, Ways], dict[str, TensorLayout]]:
    """Three units, of which the last uses the first one's weight; at tp 1 and 2."""
    found: dict[tuple[int, Ways], dict[str, TensorLayout]] = {}
    for tp in (1, 2):
        weight, middle = TensorLayout.split((6, 2), 0, tp), TensorLayout.replicated((2,), tp)
        tensors = ({TIED: weight}, {"units.1.norm": middle}, {TIED: weight})
        found |= {(unit, Ways(Axes.of(tp=tp), False, False)): of_unit for unit, of_unit in enumerate(tensors)}
    return found


def _holdings(plan: Plan) -> dict[str, Holding]:
    return {holding.name: holding for holding in holdings(plan, _layouts())}


def test_a_holder_for_each_pipeline_and_one_owner() -> None:
    first, second = _stage("a", (0, 1), ((0, 3),), ((0, 1), (2, 3))), _stage("b", (0,), ((0, 3),), ((1, 2),))
    found = _holdings(_plan((first,), (second,)))
    assert [holder.place for holder in found["units.1.norm"].holders] == [(0, 0), (1, 0)]
    assert found["units.1.norm"].owners.ranks == (RankId("b", 0),)
    assert found[TIED].owners.ranks == (RankId("a", 0), RankId("a", 1))


def test_what_is_frozen_is_saved_by_its_owner_unless_another_has_more_of_it() -> None:
    stages = _stage("a", (0, 1), ((0, 3),), ((0, 3),)), _stage("b", (0,), ((0, 3),))
    for wide, owner in (("a", 0), ("b", 1), ("a and b", 0), ("", 0)):
        placed = [one.model_copy(update={"precision": "float32" if one.pool in wide else "bfloat16"}) for one in stages]
        found = holdings(_plan(*((one,) for one in placed)), _layouts(), {TIED})
        assert {h.name: (h.trains, h.owner) for h in found} == {TIED: (False, owner), "units.1.norm": (True, 0)}


def test_a_tied_weight_on_two_stages_has_two_holders_and_one_owner() -> None:
    stages = _stage("a", (0, 1), ((0, 1),), ((0, 1), (2, 3))), _stage("b", (0,), ((1, 3),), ((1, 2),))
    tied = _holdings(_plan(stages))[TIED]
    assert [holder.place for holder in tied.holders] == [(0, 0), (0, 1)]
    assert (tied.unit, tied.owner) == (0, 0)
    assert tied.route == ((0, 0), (0, 0), (0, 1))


def test_a_tied_weight_in_two_chunks_of_a_stage_is_one_holder() -> None:
    stages = _stage("a", (0,), ((0, 1), (2, 3)), ((0, 1), (2, 3))), _stage("b", (0,), ((1, 2),), ((1, 2),))
    tied = _holdings(_plan(stages))[TIED]
    assert [(holder.place, holder.chunks) for holder in tied.holders] == [((0, 0), frozenset({0, 2}))]


def test_owners_of_a_replicated_tensor_are_one_rank() -> None:
    norm = _holdings(_plan((_stage("a", (3, 1), ((0, 3),), ((0, 3),)),)))["units.1.norm"]
    assert norm.owners.ranks == (RankId("a", 3),)


@given(st.data())
def test_owners_hold_every_element_once(data: st.DataObject) -> None:
    placement = data.draw(st.sampled_from(SHAPES).flatmap(lambda shape: placements(shape, "a")))
    owners, count = first_replicas(placement, 0), torch.zeros(placement.layout.shape)
    for position in range(len(owners.ranks)):
        count[_slices(owners.layout.region(position))] += 1
    assert torch.equal(count, torch.ones_like(count))


@given(st.data())
def test_owners_receive_the_whole_gradient_once(data: st.DataObject) -> None:
    """Equal replicas hold all of it each; summed ones, a share of it each."""
    shape = data.draw(st.sampled_from(SHAPES))
    placement = data.draw(placements(shape, "a"))
    holding = Holding("w", 0, (Holder(0, 0, frozenset({0}), placement),), 0)
    layout, owners, gradient = placement.layout, holding.owners, numbered(shape)
    replicas = len(layout.replica_groups()[0]) if layout.gradients == "summed" else 1
    local = {rank: shard(gradient, layout, placement.ranks.index(rank)) / replicas for rank in placement.regions}
    received = {rank: torch.zeros(owners.layout.local_shape(i)) for i, rank in enumerate(owners.ranks)}
    for part in contributions(holding.holders[0]):
        for piece in copies(part, owners):
            received[piece.target][_slices(piece.target_slices)] += local[piece.source][_slices(piece.source_slices)]
    for position, rank in enumerate(owners.ranks):
        torch.testing.assert_close(received[rank], shard(gradient, owners.layout, position))


def _slices(region: Region) -> tuple[slice, ...]:
    return tuple(slice(*bounds) for bounds in region)


def test_copies_of_one_precision_are_alike() -> None:
    first, second, third = (
        _stage(pool, (0,), ((0, 3),), owns) for pool, owns in (("a", ((0, 3),)), ("b", ()), ("c", ()))
    )
    tensors = holdings(_plan((first,), (second,), (third,)), _layouts())
    (same,) = alike(tensors, dict.fromkeys("abc", "float32"))
    assert same == tensors
    wide, narrow = alike(tensors, {"a": "float32", "b": "float16", "c": "float32"})
    assert [[holder.pool for holder in holding.holders] for holding in wide] == [["a", "c"]] * 2
    assert [[holder.pool for holder in holding.holders] for holding in narrow] == [["b"]] * 2
