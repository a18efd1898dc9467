"""A pipeline on a clock of whole ticks: `decide` what each stage does as it goes, or `replay` what it is told.

All arithmetic is of whole numbers, and ties fall by number, so that every rank comes to the same lists.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from balancer.plan.plan import ChunkTicks, Ticks
from balancer.schedule.action import COMPUTING, Action, Kind, Purpose
from balancer.schedule.schedule import Placed

Lists = list[list[Action]]


class Policy(NamedTuple):
    """How a stage chooses. `split`: its backwards are two actions. `alternate`: after a backward comes a forward where
    there is one, else backwards first. It makes weight gradients where it has nothing else to do for at least
    `patience` percent of their time, and before a forward for which it has no room."""

    split: bool
    alternate: bool = True
    patience: int = 0


def even_ticks(placed: Placed) -> Ticks:
    """Of equal chunks whose messages take no time."""
    return Ticks(chunks=(ChunkTicks(1, 1, 1),) * len(placed), hops=((0, 0, 0),) * (len(placed) - 1))


def ticks_of(ticks: Ticks, kind: Kind, chunk: int) -> int:
    forward, inputs, weights, hidden = ticks.chunks[chunk]
    return {Kind.F: forward, Kind.B: inputs + weights, Kind.I: inputs + hidden, Kind.W: weights}[kind]


class _Wires:
    """Between stages, each direction with one message after another."""

    def __init__(self, placed: Placed, ticks: Ticks) -> None:
        self._placed, self._hops = placed, ticks.hops
        self._free_at: dict[tuple[int, int], int] = {}

    def carry(self, boundary: int, purpose: Purpose, now: int) -> int:
        """When a message arrives. Call in the order in which a stage sends."""
        ends = self._placed[boundary], self._placed[boundary + 1]
        if ends[0] == ends[1]:
            return now
        activation, gradient, latency = self._hops[boundary]
        way, busy = (ends, activation) if purpose == "activation" else (ends[::-1], gradient)
        self._free_at[way] = max(self._free_at.get(way, 0), now) + busy
        return self._free_at[way] + latency


class _Progress:
    """What has begun, and when what it gives will be where it is needed, by chunk."""

    def __init__(self, placed: Placed, micro_batches: int, ticks: Ticks) -> None:
        self.placed, self.micro_batches = placed, micro_batches
        self.takes = {(kind, c): ticks_of(ticks, kind, c) for kind in COMPUTING for c in range(len(placed))}
        self.begun = {kind: [0] * len(placed) for kind in COMPUTING}
        self.forward: list[list[int]] = [[] for _ in placed]
        self.backward: list[list[int]] = [[] for _ in placed]
        self.forward[0] = [0] * micro_batches
        self.free_at = [0] * (max(placed) + 1)
        self._wires = _Wires(placed, ticks)

    def arrivals(self, kind: Kind) -> list[list[int]]:
        return self.forward if kind is Kind.F else self.backward

    def begin(self, kind: Kind, chunk: int, now: int) -> tuple[int, int] | None:
        """Which stage gets what an action makes, and when; None where nobody waits for it."""
        self.begun[kind][chunk] += 1
        end = self.free_at[self.placed[chunk]] = now + self.takes[kind, chunk]
        to = chunk + 1 if kind is Kind.F else chunk - 1
        if kind is Kind.W or to < 0:
            return None
        if to == len(self.placed):  # the loss's own gradient
            self.backward[chunk].append(end)
            return self.placed[chunk], end
        purpose: Purpose = "activation" if kind is Kind.F else "gradient"
        arrival = self._wires.carry(min(chunk, to), purpose, end)
        self.arrivals(kind)[to].append(arrival)
        return self.placed[to], arrival


class _Decider(_Progress):
    """Stages that choose for themselves. Only a stage's entry chunk is held back by its bound of micro-batches, each of
    which counts from its first forward to its last backward there: the oldest one can always move."""

    def __init__(self, placed: Placed, micro_batches: int, warmup: Sequence[int], ticks: Ticks, policy: Policy) -> None:
        super().__init__(placed, micro_batches, ticks)
        self.warmup, self.policy = warmup, policy
        self.back, self.last = (Kind.I, Kind.W) if policy.split else (Kind.B, Kind.B)
        self.chunks = [[c for c, stage in enumerate(placed) if stage == s] for s in range(len(self.free_at))]
        self.lists: Lists = [[] for _ in self.chunks]
        self.latest = [Kind.F] * len(self.chunks)

    def run(self) -> Lists:
        events = [(0, stage) for stage in range(len(self.chunks))]
        while events:
            now, stage = heapq.heappop(events)
            if self.free_at[stage] > now or (choice := self._choose(stage, now)) is None:
                continue
            kind, chunk = choice
            self.lists[stage].append(Action(kind, chunk, self.begun[kind][chunk]))
            if kind is not Kind.W:
                self.latest[stage] = kind
            given = self.begin(kind, chunk, now)
            heapq.heappush(events, (self.free_at[stage], stage))
            if given is not None:
                heapq.heappush(events, (given[1], given[0]))
        return self.lists

    def _choose(self, stage: int, now: int) -> tuple[Kind, int] | None:
        full, turned = self._is_full(stage), self.policy.alternate and self.latest[stage] is self.back
        forward, back = self._ready(Kind.F, stage, now, full), self._ready(self.back, stage, now)
        if forward is not None and (back is None or turned):
            return Kind.F, forward
        weights = self._oldest_weights(stage)
        held = turned and weights is not None and full and self._ready(Kind.F, stage, now) is not None
        if back is not None and not held:
            return self.back, back
        if weights is not None:
            until = now + self.takes[Kind.W, weights] * self.policy.patience // 100
            if held or self._is_idle(stage, full, until):
                return Kind.W, weights
        return None

    def _coming(self, kind: Kind, stage: int, full: bool) -> Iterator[tuple[int, int]]:
        """The stage's chunks whose next action of that kind waits for nothing but its input: when that is there. The
        last chunk comes first; a stage that is full takes no more into its entry."""
        arrivals, begun = self.arrivals(kind), self.begun[kind]
        for chunk in reversed(self.chunks[stage][full:]):
            if begun[chunk] < len(arrivals[chunk]):
                yield chunk, arrivals[chunk][begun[chunk]]

    def _ready(self, kind: Kind, stage: int, now: int, full: bool = False) -> int | None:
        return next((chunk for chunk, arrival in self._coming(kind, stage, full) if arrival <= now), None)

    def _is_full(self, stage: int) -> bool:
        chunks, left = self.chunks[stage], self.begun[self.last]
        return self.begun[Kind.F][chunks[0]] - min(left[chunk] for chunk in chunks) >= self.warmup[stage]

    def _oldest_weights(self, stage: int) -> int | None:
        """The chunk whose weight gradients have waited for most micro-batches."""
        if not self.policy.split:
            return None
        made, begun = self.begun[Kind.W], self.begun[Kind.I]
        waiting = [(made[chunk], -chunk) for chunk in self.chunks[stage] if made[chunk] < begun[chunk]]
        return -min(waiting)[1] if waiting else None

    def _is_idle(self, stage: int, full: bool, until: int) -> bool:
        """Whether nothing else is known to come before."""
        coming = (*self._coming(Kind.F, stage, full), *self._coming(self.back, stage, False))
        return all(arrival >= until for _, arrival in coming)


def decide(placed: Placed, micro_batches: int, warmup: Sequence[int], ticks: Ticks, policy: Policy) -> Lists:
    """What each stage computes, in order, where it keeps at most `warmup` micro-batches."""
    return _Decider(placed, micro_batches, warmup, ticks, policy).run()


def replay(lists: Sequence[Sequence[Action]], placed: Placed, ticks: Ticks) -> int:
    """Ticks until the last stage is done with its list."""
    micro_batches = sum(action.kind is Kind.F and action.chunk == 0 for actions in lists for action in actions)
    clock, position = _Progress(placed, micro_batches, ticks), [0] * len(lists)
    ready = list(range(len(lists)))
    while ready:
        stage = ready.pop()
        while position[stage] < len(lists[stage]):
            kind, chunk, micro_batch, _ = lists[stage][position[stage]]
            arrivals = clock.arrivals(kind)[chunk]
            if kind is Kind.W:
                start = 0
            elif micro_batch < len(arrivals):
                start = arrivals[micro_batch]
            else:
                break
            given = clock.begin(kind, chunk, max(start, clock.free_at[stage]))
            position[stage] += 1
            if given is not None and given[0] != stage:
                ready.append(given[0])
    return max(clock.free_at)
