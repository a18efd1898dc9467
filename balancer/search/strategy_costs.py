"""What the units of a model cost on a pool at a tp under one strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancer.cost.stage_times import stage_unit_time
from balancer.cost.times import update_s
from balancer.cost.workload import GRADIENT_BYTES
from balancer.memory.memory import WEIGHT_BYTES, optimizer_bytes
from balancer.plan.plan import StagePlan
from balancer.plan.recompute import RecomputedUnits
from balancer.problem import Problem
from balancer.search.alike_ranges import UnitKinds
from balancer.search.strategies import Strategy, recompute_words, strategies

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
RecomputeWord = Literal["none", "selective", "full"]


class Units(NamedTuple):
    """Of one way to recompute, prefix sums over units: seconds, those of `actions` in a row each (forwards, weight
    gradients, and what a backward in two actions takes more), bytes of a micro-batch that are kept, and what the last
    unit needs more than any other while it runs, which is `room`."""

    seconds: Floats
    actions: Floats
    kept: Floats
    last: Floats
    room: float


class StateCosts(NamedTuple):
    """By kind of unit: bytes that are `held` whoever owns, `gradients` among them, those that are `owned` beside by an
    owner, and seconds of its `update`."""

    held: Floats
    gradients: Floats
    owned: Floats
    update: Floats


class WorkCosts(NamedTuple):
    """By kind of unit, of a micro-batch: seconds, those of `actions`, bytes that are kept, and room to run."""

    seconds: Floats
    actions: Floats
    kept: Floats
    room: Floats


@dataclass(frozen=True, eq=False)
class StrategyCosts:
    """By kind of unit what a strategy costs, its work by the way to recompute; prefix sums over units of the same."""

    strategy: Strategy
    kinds: Ints
    state: StateCosts
    work: Mapping[RecomputeWord, WorkCosts]

    @cached_property
    def held(self) -> Floats:
        return self._sums(self.state.held)

    @cached_property
    def gradients(self) -> Floats:
        return self._sums(self.state.gradients)

    @cached_property
    def owned(self) -> Floats:
        return self._sums(self.state.owned)

    @cached_property
    def update(self) -> Floats:
        return self._sums(self.state.update)

    @cached_property
    def units(self) -> dict[RecomputeWord, Units]:
        return {word: self._units(work) for word, work in self.work.items()}

    @property
    def price(self) -> Floats:
        """All by which one strategy is better than another."""
        work = (part for each in self.work.values() for part in (each.seconds, each.kept))
        return np.concatenate([self.state.held, self.state.owned, self.state.update, *work])

    def parts(self, stage: StagePlan) -> Iterator[tuple[Units, int, int]]:
        """Ranges of a stage with one range of units, by how they are recomputed."""
        (begin, end), again = stage.units[0], stage.recompute
        if isinstance(again, RecomputedUnits):
            words: tuple[RecomputeWord, ...] = ("full", "selective", "none")
            bounds = [begin, begin + again.full, begin + again.count, end]
        else:
            words, bounds = (again,), [begin, end]
        for word, (a, b) in zip(words, pairwise(bounds), strict=True):
            if b > a:
                yield self.units[word], a, b

    def _units(self, work: WorkCosts) -> Units:
        most = float(work.room[self.kinds[:-1]].max(initial=0.0))
        last = np.zeros(len(self.kinds) + 1)
        last[-1] = max(0.0, work.room[self.kinds[-1]] - most)
        actions = np.array([self._sums(each) for each in work.actions])
        return Units(self._sums(work.seconds), actions, self._sums(work.kept), last, most)

    def _sums(self, each: Floats) -> Floats:
        return prefix_sums(each[self.kinds])


class StrategyPricer:
    """Of one pool, tp and size of micro-batch. State differs by where the optimizer is alone, and work by all else."""

    def __init__(self, problem: Problem, pool: str, tp: int, micro_batch: int) -> None:
        self.problem, self.pool, self.tp, self.micro_batch = problem, problem.topology.pool(pool), tp, micro_batch
        self._workload = problem.workload.at(self.pool.precision)
        self.kinds = UnitKinds.of(self._workload)

    def every(self) -> list[StrategyCosts]:
        found, kinds = strategies(self.problem, self.tp), np.array(self.kinds.of_unit)
        states = {one.optimizer: self._state(one) for one in found}
        works = {plain: self._works(plain) for plain in dict.fromkeys(map(_on_chip, found))}
        return [StrategyCosts(one, kinds, states[one.optimizer], works[_on_chip(one)]) for one in found]

    def _state(self, strategy: Strategy) -> StateCosts:
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
        return StateCosts(*np.array(rows, dtype=float).T)

    def _works(self, strategy: Strategy) -> dict[RecomputeWord, WorkCosts]:
        return {word: self._work(strategy, word) for word in recompute_words(self.problem)}

    def _work(self, strategy: Strategy, word: RecomputeWord) -> WorkCosts:
        units, n = self._workload.units, self.micro_batch
        parts = self.tp if strategy.sequence_parallel else 1
        stage, rows = strategy.stage(self.pool.name, self.tp, (0, len(units)), word), []
        for u in self.kinds.first:
            costs = self.problem.times, self.problem.topology, self.problem.workload
            time, made = stage_unit_time(*costs, stage, u, n), units[u].under(word)
            room = made.remade.whole + (made.remade.split + made.backward_bytes) / self.tp
            actions = time.forward_s, time.weight_s, time.hidden_s
            rows.append((time.total_s, *actions, made.kept_bytes(self.tp, parts), room))
        seconds, *parts_s, kept, room = n * np.array(rows, dtype=float).T
        return WorkCosts(seconds, np.array(parts_s), kept, room)


def _on_chip(strategy: Strategy) -> Strategy:
    return strategy._replace(optimizer="chip")


def prefix_sums(each: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(each)))


def best_strategies(found: Sequence[StrategyCosts]) -> list[StrategyCosts]:
    """Without those that others are never worse than."""
    prices = np.array([one.price for one in found])
    no_worse = (prices[:, None] <= prices[None]).all(axis=2)
    better = no_worse & (~no_worse.T | np.tri(len(found), k=-1, dtype=bool).T)
    return [found[int(kept)] for kept in np.nonzero(~better.any(axis=0))[0]]
