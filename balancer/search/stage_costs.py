"""What every range of units costs as a stage: its seconds under the fastest strategies that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.cost.stage_times import stage_unit_time
from balancer.cost.times import UnitTime, update_s
from balancer.cost.workload import GRADIENT_BYTES
from balancer.memory.memory import WEIGHT_BYTES, optimizer_bytes
from balancer.plan.plan import Range, StagePlan
from balancer.plan.recompute import RecomputedUnits
from balancer.problem import Problem
from balancer.search.strategies import Strategy, recompute_words, recomputed, strategies

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Word = Literal["none", "selective", "full"]

SENT, TAKEN = 2.0, 1.5
"""Gradients that lie on a chip while they are summed, for each of its own, and for the largest that others send it."""


@dataclass(frozen=True)
class Standing:
    """Where a stage stands in its pipeline: how many micro-batches it keeps, the bytes that one of its chips has for
    its units, how many copies of it its pool has, which part of its units it owns, and how many micro-batches share
    the time of an update."""

    in_flight: int
    limit_bytes: float
    copies: int = 1
    owned: float = 1.0
    micro_batches: float = np.inf


class Units(NamedTuple):
    """Of one way to recompute, prefix sums over units: seconds, those of forwards, bytes of a micro-batch that are
    kept, and what the last unit needs more than any other while it runs, which is `room`."""

    seconds: Floats
    forward: Floats
    kept: Floats
    last: Floats
    room: float


@dataclass(frozen=True)
class Plain:
    """A strategy on a pool at a tp: `units` by the way to recompute, prefix sums of bytes that are `held` whoever owns,
    `gradients` among them, those that are `owned` beside by an owner, and of the seconds of its `update`."""

    strategy: Strategy
    units: dict[_Word, Units]
    held: Floats
    gradients: Floats
    owned: Floats
    update: Floats


class StageCosts:
    """Of one pool, tp and size of micro-batch, over the places where the model can be cut."""

    def __init__(self, problem: Problem, pool: str, tp: int, micro_batch: int) -> None:
        self.problem, self.pool, self.tp, self.micro_batch = problem, problem.topology.pool(pool), tp, micro_batch
        self.cuts = np.array(problem.workload.cuts)
        self.plains = [self._plain(strategy) for strategy in strategies(problem, tp)]
        self.front = _best(self.plains)
        self._matrices: dict[tuple[Standing, float], Floats] = {}

    @cached_property
    def least_s(self) -> Floats:
        """Prefix sums over units: nothing is faster, whatever the strategy."""
        return _sums(np.min([np.diff(plain.units["none"].seconds) for plain in self.plains], axis=0))

    @cached_property
    def least_block_s(self) -> float:
        """Of the largest part that no cut divides."""
        return float(np.diff(self.least_s[self.cuts]).max())

    def seconds(self, stage: StagePlan) -> tuple[float, float]:
        """Of a micro-batch in a stage with one range of units: in all, and forwards."""
        parts = list(self._parts(stage))
        total = sum(units.seconds[b] - units.seconds[a] for units, a, b in parts)
        return float(total), float(sum(units.forward[b] - units.forward[a] for units, a, b in parts))

    def need_bytes(self, place: Standing, stage: StagePlan) -> float:
        """Of its units on one chip."""
        (begin, end), plain, parts = stage.units[0], self._plain_of(stage), list(self._parts(stage))
        state = plain.held + place.owned * plain.owned
        kept = sum(place.in_flight * (u.kept[b] - u.kept[a]) + u.last[b] - u.last[a] for u, a, b in parts)
        computing = kept + max(units.room for units, _, _ in parts)
        copies = self._copies(place, plain, np.array([begin]), np.array([end]))[0]
        return float(state[end] - state[begin] + max(computing, copies))

    def _parts(self, stage: StagePlan) -> Iterator[tuple[Units, int, int]]:
        """Its units by how they are recomputed."""
        (begin, end), again, plain = stage.units[0], stage.recompute, self._plain_of(stage)
        if isinstance(again, RecomputedUnits):
            words: tuple[_Word, ...] = ("full", "selective", "none")
            bounds = [begin, begin + again.full, begin + again.count, end]
        else:
            words, bounds = (again,), [begin, end]
        for word, (a, b) in zip(words, pairwise(bounds), strict=True):
            if b > a:
                yield plain.units[word], a, b

    def _plain_of(self, stage: StagePlan) -> Plain:
        return next(one for one in self.plains if one.strategy == Strategy.of(stage))

    @cached_property
    def least_bytes(self) -> Floats:
        """Of each unit: no strategy needs less, in the pipeline's only copy or one of several."""
        found: Floats = np.min([np.diff(plain.held) for plain in self.plains], axis=0)
        return found

    def matrix(self, place: Standing, most_s: float = np.inf) -> Floats:
        """Seconds of a micro-batch by first and last cut; infinite where nothing fits, or all takes more than
        `most_s`."""
        key = place, most_s
        if key not in self._matrices:
            least = self.least_s[self.cuts]
            found = np.full((len(self.cuts),) * 2, np.inf)
            rows, columns = np.nonzero(np.triu(least[None, :] - least[:, None] <= most_s, 1))
            for _, seconds, _, _ in self._ways(place, self.cuts[rows], self.cuts[columns]):
                found[rows, columns] = np.minimum(found[rows, columns], seconds)
            self._matrices[key] = found
        return self._matrices[key]

    def stage(self, place: Standing, units: Range) -> StagePlan:
        """With the strategies that are fastest there."""
        best: tuple[float, StagePlan] | None = None
        for plain, seconds, full, selective in self._ways(place, np.array([units[0]]), np.array([units[1]])):
            if best is None or seconds[0] < best[0]:
                again = recomputed(int(full[0]), int(selective[0]), units[1] - units[0])
                best = float(seconds[0]), plain.strategy.stage(self.pool.name, self.tp, units, again)
        assert best is not None
        return best[1]

    def least_need(self, place: Standing, begin: Ints, end: Ints) -> Floats:
        """Bytes under the strategies that need least."""
        words: tuple[_Word, ...] = ("none", "selective", "full")
        needs = [
            self._need(place, plain, word, begin, end) for plain in self.front for word in words if word in plain.units
        ]
        found: Floats = np.min(needs, axis=0)
        return found

    def _ways(self, place: Standing, begin: Ints, end: Ints) -> Iterator[tuple[Plain, Floats, Ints, Ints]]:
        """Of each strategy and way to recompute: seconds of each range of units (infinite where it doesn't fit), and
        how many of its units are recomputed in full and selectively."""
        none = np.zeros_like(begin)
        for plain in self.front:
            kept = plain.units["none"]
            update = (plain.update[end] - plain.update[begin]) * place.owned / place.micro_batches
            base = kept.seconds[end] - kept.seconds[begin] + update
            over = self._need(place, plain, "none", begin, end) - place.limit_bytes
            yield plain, np.where(over <= 0, base, np.inf), none, none
            if "full" not in plain.units or not (over > 0).any():
                continue
            for low, high in combinations(plain.units, 2):
                yield self._mixed(place, plain, low, high, begin, end, update)

    def _mixed(
        self, place: Standing, plain: Plain, low: _Word, high: _Word, begin: Ints, end: Ints, update: Floats
    ) -> tuple[Plain, Floats, Ints, Ints]:
        """As few units as fit are recomputed the `high` way, the first ones, and the others the `low` way."""
        below, above = plain.units[low], plain.units[high]
        saved = place.in_flight * (below.kept - above.kept)
        room = max(below.room, above.room) - below.room
        over = self._need(place, plain, low, begin, end) + room - place.limit_bytes
        count = np.searchsorted(saved, saved[begin] + np.maximum(over, 0.0), side="left")
        state = plain.held + place.owned * plain.owned
        summed = state[end] - state[begin] + self._copies(place, plain, begin, end) <= place.limit_bytes
        fits, upto = (count <= end) & summed, np.minimum(np.maximum(count, begin), end)
        seconds = above.seconds[upto] - above.seconds[begin] + below.seconds[end] - below.seconds[upto] + update
        several = upto - begin
        rest = end - upto if low == "selective" else np.zeros_like(begin)
        full, selective = (several, rest) if high == "full" else (np.zeros_like(begin), several)
        return plain, np.where(fits, seconds, np.inf), full, selective

    def _need(self, place: Standing, plain: Plain, word: _Word, begin: Ints, end: Ints) -> Floats:
        units = plain.units[word]
        state, computing = plain.held + place.owned * plain.owned, place.in_flight * units.kept + units.last
        beside = np.maximum(computing[end] - computing[begin] + units.room, self._copies(place, plain, begin, end))
        found: Floats = state[end] - state[begin] + beside
        return found

    def _copies(self, place: Standing, plain: Plain, begin: Ints, end: Ints) -> Floats:
        """What is on its way between copies of the stage's units: all is sent, as much again is kept, and who sums a
        unit gets it from all others."""
        if place.copies == 1:
            return np.zeros(begin.shape)
        own = plain.gradients[end] - plain.gradients[begin]
        found: Floats = SENT * own + TAKEN * (place.copies - 1) * np.diff(plain.gradients).max()
        return found

    @cached_property
    def _kinds(self) -> tuple[list[int], Ints]:
        """A unit of each kind, tied ones by themselves, and of which kind each unit is."""
        again = {later: first for first, later in self.problem.workload.tied}
        units, first = self.problem.workload.at(self.pool.precision).units, dict[tuple[int, int | None], int]()
        which = [first.setdefault((id(unit), again.get(u)), u) for u, unit in enumerate(units)]
        kinds = list(first.values())
        return kinds, np.array([kinds.index(one) for one in which])

    def _of_units(self, each: Sequence[float]) -> Floats:
        """Prefix sums over units of what is known by kind."""
        return _sums(np.array(each, dtype=float)[self._kinds[1]])

    def _plain(self, strategy: Strategy) -> Plain:
        problem, pool, tp = self.problem, self.pool, self.tp
        units, weight = problem.workload.at(pool.precision).units, WEIGHT_BYTES[pool.precision]
        again = {later: first for first, later in problem.workload.tied}
        owner = optimizer_bytes(pool.precision, problem.workload.update) if strategy.optimizer == "chip" else 0
        stage = strategy.stage(pool.name, tp, (0, len(units)))
        held, gradients, owned, update = [], [], [], []
        for u in self._kinds[0]:
            here = [units[u], *([units[again[u]]] if u in again else [])]
            whole = (tp - 1) * units[u].undivided
            state = sum(one.parameters * weight + one.trained * GRADIENT_BYTES for one in here)
            held.append((state + whole * (weight + GRADIENT_BYTES)) / tp)
            gradients.append(sum(one.trained for one in here) * GRADIENT_BYTES / tp)
            owned.append((units[u].trained + whole) * owner / tp)
            update.append(update_s(pool.chip, problem.workload, stage.model_copy(update={"owns": ((u, u + 1),)})))
        return Plain(
            strategy,
            {word: self._units(strategy, word) for word in recompute_words(problem)},
            *map(self._of_units, (held, gradients, owned, update)),
        )

    def _units(self, strategy: Strategy, word: _Word) -> Units:
        units, n = self.problem.workload.at(self.pool.precision).units, self.micro_batch
        parts = self.tp if strategy.sequence_parallel else 1
        stage = strategy.stage(self.pool.name, self.tp, (0, len(units)), word)
        times = [self._time(stage, u) for u in self._kinds[0]]
        made = [units[u].under(word) for u in self._kinds[0]]
        rooms = [n * (one.remade_whole_bytes + (one.remade_bytes + one.backward_bytes) / self.tp) for one in made]
        most = max((rooms[kind] for kind in self._kinds[1][:-1]), default=0.0)
        last = np.zeros(len(units) + 1)
        last[-1] = max(0.0, rooms[self._kinds[1][-1]] - most)
        return Units(
            self._of_units([n * time.total_s for time in times]),
            self._of_units([n * time.forward_s for time in times]),
            self._of_units([n * one.kept_bytes(self.tp, parts) for one in made]),
            last,
            most,
        )

    def _time(self, stage: StagePlan, unit: int) -> UnitTime:
        costs = self.problem.times, self.problem.topology, self.problem.workload
        return stage_unit_time(*costs, stage, unit, self.micro_batch)


def _sums(each: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(each)))


def _best(found: Sequence[Plain]) -> list[Plain]:
    """Without those that others are never worse than."""
    kept: list[Plain] = []
    for plain in found:
        if not any(_no_worse(other, plain) for other in kept):
            kept = [other for other in kept if not _no_worse(plain, other)] + [plain]
    return kept


def _no_worse(one: Plain, other: Plain) -> bool:
    pairs = [(one.held, other.held), (one.owned, other.owned), (one.update, other.update)]
    for word, units in one.units.items():
        pairs += [(units.seconds, other.units[word].seconds), (units.kept, other.units[word].kept)]
    return all((np.diff(mine) <= np.diff(theirs)).all() for mine, theirs in pairs)
