"""Flows pack, carry and unpack what the planner says, whatever the layouts; wires in memory carry them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.cpu import CpuBackend
from bridge.layout.layout import LayoutError, TensorLayout
from bridge.layout.reshard import Placement, Reshard, copies, reshard
from bridge.rank import RankId
from hetero.transfer.flow import Flow
from hetero.transfer.messages import Destination, MessageSpec, message_specs, unpack
from hetero.transfer.waits import Waits
from tests.examples import out_of_100
from tests.unit.hetero.engine.placements import SHAPES, numbered, part_of, placements, ranks


class Wire:
    """Messages in memory: they arrive in the order of sending, into receives that were posted."""

    def __init__(self) -> None:
        self._sent: deque[torch.Tensor] = deque()
        self.posted = 0

    def send_pieces(self, pieces: Sequence[torch.Tensor]) -> None:
        self._sent.append(torch.cat([piece.reshape(-1) for piece in pieces]))

    def drain(self) -> None: ...

    def post(self) -> None:
        self.posted += 1

    def receive_pieces(self, places: Sequence[Destination]) -> list[torch.Tensor]:
        assert self.posted > 0, "nothing was posted"
        self.posted -= 1
        return unpack(self._sent.popleft(), places)


class Wires:
    """Makes both ends of each message the same wire, as `PointToPoint` does between processes."""

    def __init__(self) -> None:
        self.backend = CpuBackend()
        self.by_pair: dict[tuple[RankId, RankId], Wire] = {}

    def seen_by(self, me: RankId) -> Any:
        return SimpleNamespace(
            me=me, backend=self.backend, waits=Waits(self.backend), sender=self._end, receiver=self._end
        )

    def _end(self, message: MessageSpec, *_: Any) -> Wire:
        return self.by_pair.setdefault((message.source, message.target), Wire())


def _move(tensors: list[tuple[Placement, Placement]], plans: list[Reshard], turns: int, window: int) -> None:
    """Moves numbered tensors for some turns, and checks that each target gets what is its own."""
    wires = Wires()
    everyone = sorted({rank for pair in tensors for placement in pair for rank in placement.ranks})
    flows = {}
    for me in everyone:
        shapes = [target.local_shape(me) for _, target in tensors]
        flows[me] = Flow(wires.seen_by(me), "sync", "test", plans, shapes, torch.float32, window)
        flows[me].begin(turns)
    for turn in range(turns):
        for me in everyone:
            flows[me].send_tensors([_held(source, me, turn) for source, _ in tensors])
        for me in everyone:
            found = flows[me].receive_tensors()
            for (_, target), value in zip(tensors, found, strict=True):
                wanted = _held(target, me, turn)
                assert (value is None) == (wanted is None)
                assert value is None or wanted is None or torch.equal(value, wanted)
    assert all(wire.posted == 0 for wire in wires.by_pair.values()), "more was posted than sent"


def _held(placement: Placement, rank: RankId, turn: int) -> torch.Tensor | None:
    return part_of(numbered(placement.layout.shape) + 1000 * turn, placement, rank)


@st.composite
def _moves(draw: st.DrawFn) -> list[tuple[Placement, Placement]]:
    """Up to three tensors, from one pool to another or inside one."""
    target_pool = draw(st.sampled_from(["a", "b"]))
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    return [(draw(placements(shape, "a")), draw(placements(shape, target_pool))) for shape in shapes]


@out_of_100(60)
@given(_moves(), st.integers(1, 3), st.integers(1, 2))
def test_any_layout_to_any_layout(tensors: list[tuple[Placement, Placement]], turns: int, window: int) -> None:
    plans = [Reshard(copies(source, target), ()) for source, target in tensors]
    _move(tensors, plans, turns, window)


@out_of_100(60)
@given(st.data())
def test_one_target_has_nobody_to_gather_from(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(SHAPES))
    source = data.draw(placements(shape, "a"))
    target = data.draw(
        placements(shape, "b").filter(lambda found: len(found.layout.replica_groups()) == len(found.regions))
    )
    plan = reshard(source, target)
    assert plan.gathers == ()
    _move([(source, target)], [plan], 2, 1)


@given(_moves())
def test_lanes_hold_each_piece_once_and_in_order(tensors: list[tuple[Placement, Placement]]) -> None:
    plans = [copies(source, target) for source, target in tensors]
    found = message_specs(plans)
    assert len({(message.source, message.target) for message in found}) == len(found)
    for message in found:
        wanted = [
            (number, piece)
            for number, pieces in enumerate(plans)
            for piece in pieces
            if (piece.source, piece.target) == (message.source, message.target)
        ]
        assert list(message.pieces) == wanted
        assert message.numel == sum(piece.numel for _, piece in wanted)
    assert sum(len(message.pieces) for message in found) == sum(len(pieces) for pieces in plans)


BOUNDARY = (3, 8, 5)
"""Sequences, their tokens, and what each is made of."""
WHOLE = TensorLayout.replicated(BOUNDARY, 2)
BY_TOKENS = TensorLayout.split(BOUNDARY, 1, 2)


class GatherGroup:
    """The ranks of a pool in one thread: a gather waits until the last of them has come to it."""

    def __init__(self, members: int) -> None:
        self.members, self._came = tuple(range(members)), list[Sequence[torch.Tensor]]()

    def all_gather(self, parts: Sequence[torch.Tensor]) -> None:
        """All parts are views of the caller's tensor; its own is there."""
        self._came.append(parts)
        if len(self._came) == len(self.members):
            for whole in self._came:
                for member, part in enumerate(whole):
                    part.copy_(self._came[member][member])


def test_a_boundary_that_is_cut_along_the_tokens_arrives_whole() -> None:
    """Each half crosses once, in halves, and the ranks of the target complete it among themselves."""
    source, target = Placement(BY_TOKENS, ranks("a", 2)), Placement(WHOLE, ranks("b", 2))
    plan, wires, group = reshard(source, target), Wires(), GatherGroup(2)
    assert sum(piece.numel for piece in plan.pieces) == numbered(BOUNDARY).numel()
    flows = {
        me: Flow(wires.seen_by(me), "activation", "test", [plan], [target.local_shape(me)], torch.float32, 1, group)
        for me in (*source.ranks, *target.ranks)
    }
    for flow in flows.values():
        flow.begin(1)
    for me in source.ranks:
        flows[me].send_tensors([_held(source, me, 0)])
    for found in [flows[me].receive_tensors() for me in target.ranks]:
        assert torch.equal(found[0], numbered(BOUNDARY))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 4])
def test_a_whole_boundary_arrives_cut_along_the_tokens(size: int) -> None:
    """Each rank gets its tokens alone, and the source's ranks share the sending."""
    source = Placement(WHOLE, ranks("a", 2))
    target = Placement(TensorLayout.split(BOUNDARY, 1, size), ranks("b", size))
    plan = reshard(source, target)
    assert plan.gathers == ()
    sent = [sum(piece.numel for piece in plan.pieces if piece.source == rank) for rank in source.ranks]
    assert sent == [numbered(BOUNDARY).numel() / 2] * 2
    _move([(source, target)], [plan], 3, 2)


def test_a_gather_over_others_than_those_that_have_the_part_is_refused() -> None:
    """Two halves, each on two ranks of four: the group of all four would wait for the wrong ones."""
    halves = BY_TOKENS.regions
    source = Placement(WHOLE, ranks("a", 2))
    target = Placement(TensorLayout(BOUNDARY, (halves[0], halves[0], halves[1], halves[1])), ranks("b", 4))
    plan, me, group = reshard(source, target), target.ranks[0], GatherGroup(4)
    with pytest.raises(LayoutError, match="over a group of their own"):
        Flow(Wires().seen_by(me), "activation", "test", [plan], [target.local_shape(me)], torch.float32, 1, group)


def test_a_missing_source_is_named() -> None:
    layout = TensorLayout.replicated((8,), 1)
    source, target = (Placement(layout, ranks(pool, 1)) for pool in "ab")
    plan, me = Reshard(copies(source, target), ()), source.ranks[0]
    flow = Flow(Wires().seen_by(me), "sync", "test", [plan], [None], torch.float32, 1)
    with pytest.raises(ValueError, match="tensor 0 of the flow is not on this rank"):
        flow.send_tensors([None])
