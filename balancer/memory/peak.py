"""When a stage's chip is fullest while it computes: its action list, walked with the bytes that each action keeps.

A forward keeps what its units' backwards read, until these have run. A backward goes from the last unit to the first:
each needs some room of its own while it runs, and what it has read is gone when it is done. Where it is two actions,
the first leaves the pairs that the second reads: inputs of products, and the gradients of what they gave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from balancer.schedule.action import COMPUTING, KINDS, Actions, Kind, refuse_unknown


@dataclass(frozen=True)
class UnitRoom:
    """Bytes of one micro-batch in one unit, on one chip: `kept` from its forward to its backward, `forward` and
    `backward` beside that while these run, of which backward makes `remade` again first, and `gradient`, a weight's
    while it waits to be added to the sum, if one does. `sums` are the sums that its first backward makes, `packed` what
    its last one leaves to be sent, `pairs` what is kept of it between the two actions of a backward."""

    kept: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    gradient: float = 0.0
    sums: float = 0.0
    packed: float = 0.0
    remade: float = 0.0
    pairs: float = 0.0

    def temporary(self, adds: bool) -> float:
        """What backward needs for a while, where the gradient of a weight is added to a sum that is there."""
        beside = self.remade + (self.backward - self.remade) / 2
        return max(self.backward, beside + (self.gradient if adds else 0.0))

    def first_action(self, adds: bool) -> float:
        """The same of the first of two actions: a unit without pairs makes all its gradients there."""
        return self.backward if self.pairs else self.temporary(adds)

    @property
    def second_action(self) -> float:
        return self.gradient if self.pairs else 0.0


@dataclass(frozen=True)
class ChunkRoom:
    """`ends` are the boundary tensors at both ends and what units share, kept as long as the units' own, `arriving` the
    gradient that a backward is given."""

    units: tuple[UnitRoom, ...]
    ends: float = 0.0
    arriving: float = 0.0

    @cached_property
    def kept(self) -> float:
        return self.ends + sum(unit.kept for unit in self.units)

    @cached_property
    def forwards(self) -> tuple[float, ...]:
        """What a forward needs in each unit, with what it keeps."""
        kept = accumulate((unit.kept for unit in self.units), initial=self.ends)
        return tuple(now + unit.kept + unit.forward for now, unit in zip(kept, self.units, strict=False))

    @property
    def forward(self) -> float:
        return max([self.ends, *self.forwards])

    @cached_property
    def pairs(self) -> float:
        return sum(unit.pairs for unit in self.units)

    def most(self, kind: Kind, first: bool, last: bool) -> float:
        """The most that an action adds to what was kept when it began; less than nothing if it only frees."""
        if kind is Kind.F:
            return self.forward
        if kind is Kind.I:
            return self._inputs(first)
        return self._weights(last) if kind is Kind.W else self._backward(first, last)

    def left(self, kind: Kind, first: bool) -> float:
        """What an action adds to what is kept."""
        sums = self.sums if first else 0.0
        added = {Kind.F: self.kept, Kind.I: sums + self.pairs - self.kept, Kind.W: -self.pairs}
        return added.get(kind, sums - self.kept)

    def _backward(self, first: bool, last: bool) -> float:
        now, peak = self.arriving, -self.kept
        for unit in reversed(self.units):
            now += unit.sums if first else 0.0
            peak = max(peak, now + unit.temporary(adds=not (first and unit.sums)))
            now += (unit.packed if last else 0.0) - unit.kept
        return max(peak, now)

    def _inputs(self, first: bool) -> float:
        now, peak = self.arriving, -self.kept
        for unit in reversed(self.units):
            now += unit.sums if first else 0.0
            peak = max(peak, now + unit.first_action(adds=not (first and unit.sums)))
            now += unit.pairs - unit.kept
        return max(peak, now)

    def _weights(self, last: bool) -> float:
        now, peak = 0.0, -self.pairs
        for unit in reversed(self.units):
            peak = max(peak, now + unit.second_action)
            now += (unit.packed if last else 0.0) - unit.pairs
        return max(peak, now)

    @cached_property
    def sums(self) -> float:
        return sum(unit.sums for unit in self.units)


Moment = tuple[Kind, int, bool, bool]
"""An action of a chunk that begins: whether the chunk has not yet had, or will not have again, one of its kind."""
Left = tuple[tuple[tuple[Kind, int, bool], float], ...]
"""Bytes that an action adds to what is kept, by its kind and chunk, and whether it is the chunk's first of its kind."""


def compute_peak(actions: Actions, rooms: Mapping[int, ChunkRoom], posted: Iterable[float]) -> float:
    """The most bytes at once, beside those that are there all the time; `rooms` by chunk, `posted` what lies ready for
    messages while each computation runs."""
    return peak_of(fullest_moments(actions, left_by(rooms), posted), rooms)


def left_by(rooms: Mapping[int, ChunkRoom]) -> Left:
    """What actions of these chunks add to what is kept."""
    each = ((kind, chunk, first) for chunk in rooms for kind in COMPUTING for first in (False, True))
    return tuple((one, rooms[one[1]].left(one[0], one[2])) for one in each)


def fullest_moments(actions: Actions, left: Left, posted: Iterable[float]) -> dict[Moment, float]:
    """The most that is there when an action of each sort begins, beside what is there all the time."""
    most: dict[Moment, float] = {}
    for moment, there in _moments(actions, dict(left), posted):
        if there > most.get(moment, -1.0):
            most[moment] = there
    return most


def peak_of(fullest: Mapping[Moment, float], rooms: Mapping[int, ChunkRoom]) -> float:
    """The most while any of them runs."""
    return max(there + rooms[chunk].most(kind, first, last) for (kind, chunk, first, last), there in fullest.items())


def first_forwards_peak(
    actions: Actions, rooms: Mapping[int, ChunkRoom], returning: Mapping[int, Sequence[int]]
) -> float:
    """The most while parameters return: a chunk's first forward lets go of what has come for a unit when it comes to
    it. `returning` are the bytes of each unit, by chunk."""
    kept, left = 0.0, float(sum(map(sum, returning.values())))
    peak, waits = left, dict(returning)
    for action in (action for action in actions if action.kind in COMPUTING):
        if action.kind is not Kind.F:
            break
        room = rooms[action.chunk]
        for needed, came in zip(room.forwards, waits.pop(action.chunk, [0] * len(room.units)), strict=True):
            left -= came
            peak = max(peak, left + kept + needed)
        kept += room.kept
    return peak


def _moments(
    actions: Actions, adds: Mapping[tuple[Kind, int, bool], float], posted: Iterable[float]
) -> Iterator[tuple[Moment, float]]:
    """Each computation, with the bytes that are there when it begins."""
    refuse_unknown(actions, KINDS, "the memory model")
    computing = [(action.kind, action.chunk) for action in actions if action.kind in COMPUTING]
    left, kept, begun = Counter(computing), 0.0, set[tuple[Kind, int]]()
    for one, ready in zip(computing, posted, strict=True):
        left[one] -= 1
        first = one not in begun
        yield (*one, first, left[one] == 0), kept + ready
        begun.add(one)
        kept += adds[(*one, first)]
