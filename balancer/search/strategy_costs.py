"""What the units of a model cost on a pool at a tp under one strategy, as prefix sums over units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.cost.stage_times import stage_unit_time
from balancer.cost.times import update_s
from balancer.memory.memory import WEIGHT_BYTES, optimizer_bytes
from balancer.memory.sync_memory import GRADIENT_BYTES
from balancer.plan.plan import StagePlan
from balancer.plan.recompute import RecomputedUnits
from balancer.problem import Problem
from balancer.search.alike_ranges import UnitKinds
from balancer.search.strategies import Strategy, recompute_words, strategies

Floats = NDArray[np.float64]
Word = Literal["none", "selective", "full"]


class Units(NamedTuple):
    """Of one way to recompute, prefix sums over units: seconds, those of forwards, bytes of a micro-batch that are
    kept, and what the last unit needs more than any other while it runs, which is `room`."""

    seconds: Floats
    forward: Floats
    kept: Floats
    last: Floats
    room: float


@dataclass(frozen=True)
class StrategyCosts:
    """`units` by the way to recompute, prefix sums of bytes that are `held` whoever owns, `gradients` among them, those
    that are `owned` beside by an owner, and of the seconds of its `update`. `price` is all by which one strategy is
    better than another, by kind of unit."""

    strategy: Strategy
    units: dict[Word, Units]
    held: Floats
    gradients: Floats
    owned: Floats
    update: Floats
    price: Floats

    def parts(self, stage: StagePlan) -> Iterator[tuple[Units, int, int]]:
        """Ranges of a stage with one range of units, by how they are recomputed."""
        (begin, end), again = stage.units[0], stage.recompute
        if isinstance(again, RecomputedUnits):
            words: tuple[Word, ...] = ("full", "selective", "none")
            bounds = [begin, begin + again.full, begin + again.count, end]
        else:
            words, bounds = (again,), [begin, end]
        for word, (a, b) in zip(words, pairwise(bounds), strict=True):
            if b > a:
                yield self.units[word], a, b


class StrategyPricer:
    """Of one pool, tp and size of micro-batch."""

    def __init__(self, problem: Problem, pool: str, tp: int, micro_batch: int) -> None:
        self.problem, self.pool, self.tp, self.micro_batch = problem, problem.topology.pool(pool), tp, micro_batch
        self._workload = problem.workload.at(self.pool.precision)
        self.kinds = UnitKinds.of(self._workload)

    def every(self) -> list[StrategyCosts]:
        return [self._priced(strategy) for strategy in strategies(self.problem, self.tp)]

    def _priced(self, strategy: Strategy) -> StrategyCosts:
        state = self._state(strategy)
        by_word = {word: self._computing(strategy, word) for word in recompute_words(self.problem)}
        made = {word: self._units(*each) for word, each in by_word.items()}
        price = np.concatenate([state[0], *state[2:], *(part for each in by_word.values() for part in (each[0], each[2]))])
        return StrategyCosts(strategy, made, *map(self._sums, state), price)

    def _state(self, strategy: Strategy) -> tuple[Floats, Floats, Floats, Floats]:
        """Bytes that are held, gradients, bytes of an owner, and seconds of an update, by kind of unit."""
        problem, tp, precision = self.problem, self.tp, self.pool.precision
        units, weight = self._workload.units, WEIGHT_BYTES[precision]
        again = {later: first for first, later in problem.workload.tied}
        owner = optimizer_bytes(precision, problem.workload.update) if strategy.optimizer == "chip" else 0
        stage, rows = strategy.stage(self.pool.name, tp, (0, len(units))), []
        for u in self.kinds.first:
            here = [units[u], *([units[again[u]]] if u in again else [])]
            whole = (tp - 1) * units[u].undivided
            state = sum(one.parameters * weight + one.trained * GRADIENT_BYTES for one in here)
            rows.append((
                (state + whole * (weight + GRADIENT_BYTES)) / tp,
                sum(one.trained for one in here) * GRADIENT_BYTES / tp,
                (units[u].trained + whole) * owner / tp,
                update_s(self.pool.chip, problem.workload, stage.model_copy(update={"owns": ((u, u + 1),)})),
            ))  # fmt: skip
        held, gradients, owned, update = np.array(rows, dtype=float).T
        return held, gradients, owned, update

    def _computing(self, strategy: Strategy, word: Word) -> tuple[Floats, Floats, Floats, Floats]:
        """Of a micro-batch: seconds, those of forwards, bytes that are kept, and room to run, by kind of unit."""
        units, n = self._workload.units, self.micro_batch
        parts = self.tp if strategy.sequence_parallel else 1
        stage, rows = strategy.stage(self.pool.name, self.tp, (0, len(units)), word), []
        for u in self.kinds.first:
            costs = self.problem.times, self.problem.topology, self.problem.workload
            time, made = stage_unit_time(*costs, stage, u, n), units[u].under(word)
            room = made.remade_whole_bytes + (made.remade_bytes + made.backward_bytes) / self.tp
            rows.append((n * time.total_s, n * time.forward_s, n * made.kept_bytes(self.tp, parts), n * room))
        seconds, forward, kept, rooms = np.array(rows, dtype=float).T
        return seconds, forward, kept, rooms

    def _units(self, seconds: Floats, forward: Floats, kept: Floats, rooms: Floats) -> Units:
        *others, head = self.kinds.of_unit
        most = float(rooms[others].max(initial=0.0))
        last = np.zeros(len(others) + 2)
        last[-1] = max(0.0, rooms[head] - most)
        return Units(self._sums(seconds), self._sums(forward), self._sums(kept), last, most)

    def _sums(self, each: Floats) -> Floats:
        """Prefix sums over units of what is known by kind."""
        return prefix_sums(each[list(self.kinds.of_unit)])


def prefix_sums(each: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(each)))


def best_strategies(found: Sequence[StrategyCosts]) -> list[StrategyCosts]:
    """Without those that others are never worse than."""
    prices = np.array([one.price for one in found])
    no_worse = (prices[:, None] <= prices[None]).all(axis=2)
    better = no_worse & (~no_worse.T | np.tri(len(found), k=-1, dtype=bool).T)
    return [one for one, beaten in zip(found, better.any(axis=0), strict=True) if not beaten]
