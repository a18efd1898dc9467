"""Every way to make equal pipelines of some pools, at once: how many, of how many stages, at which tp, and bounds on
what they take. No cut and no strategy makes them faster, and only a way that is passed over needs more memory.

With many chips the stages of several pools are as many as there is room for; the bounds hold for fewer all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations, product

import numpy as np
from numpy.typing import NDArray

from balancer.memory.memory import SLACK
from balancer.problem import Problem
from balancer.search.grouping import Group, Segment
from balancer.search.stage_costs import SENT, TAKEN, StageCosts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MANY = 4096
"""Layouts of some pools that are listed with fewer stages than there is room for."""


@dataclass(frozen=True)
class Layouts:
    """Of some pools at given tps and one size of micro-batch: `pipelines`, and `stages` by pool (a row each). No
    pipeline gets from micro-batch to micro-batch in less than `period_s`, nor takes one there and back in less than
    `trip_s`. `expected_s` is a guess at the period, with strategies that fit into memory."""

    pools: tuple[str, ...]
    tps: tuple[int, ...]
    micro_batch: int
    pipelines: Ints
    stages: Ints
    period_s: Floats
    expected_s: Floats
    trip_s: float

    @cached_property
    def fastest(self) -> float:
        """Sequences per second of the best way, once it is full."""
        return float((self.pipelines / self.period_s).max()) * self.micro_batch

    def sequences(self, within_s: float, fills: float) -> Floats:
        """That each way gets done in some time at most, if a pipeline fills for this part of what a micro-batch takes
        at least."""
        fill = np.maximum(0.0, fills * self.trip_s - self.period_s)
        each = np.floor((within_s - fill) / self.period_s * (1 + 1e-9) + 1e-9)
        found: Floats = np.maximum(each, 0.0) * (self.pipelines * self.micro_batch)
        return found

    def expected_sequences(self, within_s: float) -> Floats:
        """The same by a guess, with parts of micro-batches."""
        each = np.maximum(0.0, within_s / self.expected_s - (self.stages.sum(axis=1) - 1))
        found: Floats = each * (self.pipelines * self.micro_batch)
        return found

    def groups(self, way: int) -> Iterator[Group]:
        """The orders in which the pools may follow each other, the first pools' first."""
        segments = [Segment(*each) for each in zip(self.pools, self.tps, map(int, self.stages[way]), strict=True)]
        for order in permutations(segments):
            yield Group(order, int(self.pipelines[way]), self.micro_batch)


class LayoutSpace:
    """All layouts of a problem, by the pools that they join. It is `whole` unless some with fewer stages are left out;
    `passed_over` are those that fit into no memory."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.costs: dict[tuple[str, int, int], StageCosts] = {}
        self.passed_over = 0
        self.whole = True
        self._found: dict[tuple[str, ...], list[Layouts]] = {}

    def of(self, pools: tuple[str, ...]) -> list[Layouts]:
        if pools not in self._found:
            self._found[pools] = list(self._layouts(pools))
        return self._found[pools]

    def cost(self, pool: str, tp: int, micro_batch: int) -> StageCosts:
        key = pool, tp, micro_batch
        if key not in self.costs:
            self.costs[key] = StageCosts(self.problem, *key)
        return self.costs[key]

    @cached_property
    def pairs(self) -> int:
        """Of hosts, over which what crosses between two pools is spread."""
        return min(-(-pool.count // pool.chips_per_host) for pool in self.problem.topology.pools)

    @property
    def size(self) -> int:
        """Layouts that may fit into memory."""
        return sum(len(layouts.pipelines) for found in self._found.values() for layouts in found)

    def _layouts(self, pools: tuple[str, ...]) -> Iterator[Layouts]:
        problem, specs = self.problem, [self.problem.topology.pool(name) for name in pools]
        legal = ([tp for tp in spec.tp_sizes() if self._can(spec.name, tp)] for spec in specs)
        for tps in product(*legal):
            rooms = [spec.tp_groups(tp) for spec, tp in zip(specs, tps, strict=True)]
            if not all(rooms):
                continue
            for size in problem.micro_batch_sizes:
                cuts = len(problem.workload.cuts) - 1
                fullest = _fullest(rooms, min(*rooms, problem.workload.global_batch // size), cuts)
                if len(rooms) > 1 and np.prod(fullest.astype(float), axis=1).sum() > MANY:
                    self.whole = False
                    ways = np.concatenate([np.arange(1, len(fullest) + 1)[:, None], fullest], axis=1)
                else:
                    ways = _every(fullest, cuts)
                if len(ways):
                    yield from self._bounded(pools, tps, size, ways)

    def _can(self, pool: str, tp: int) -> bool:
        return not self.problem.legal_tp(tp) and self.problem.knows(pool, tp)

    def _bounded(self, pools: tuple[str, ...], tps: tuple[int, ...], size: int, ways: Ints) -> Iterator[Layouts]:
        pipelines, stages = ways[:, 0], ways[:, 1:]
        costs = [self.cost(pool, tp, size) for pool, tp in zip(pools, tps, strict=True)]
        limits = np.array([cost.pool.memory_bytes / (1 + SLACK) for cost in costs])
        needed = np.min([cost.least_bytes for cost in costs], axis=0).sum()
        fits = stages @ limits >= needed
        self.passed_over += int((~fits).sum())
        if not fits.any():
            return
        pipelines, stages = pipelines[fits], stages[fits]
        models = np.array([cost.least_s[-1] for cost in costs])
        blocks = np.min([np.diff(cost.least_s[cost.cuts]) for cost in costs], axis=0)
        period = np.maximum(1 / (stages / models).sum(axis=1), blocks.max())
        expected = self._expected(costs, limits, pipelines, stages)
        expected[stages.sum(axis=1) >= len(costs[0].cuts)] = np.inf  # more than the model can be cut into
        expected = np.maximum.reduce([period, expected, self._crossing_s(pools, size, pipelines)])
        yield Layouts(pools, tps, size, pipelines, stages, period, expected, blocks.sum())

    def _crossing_s(self, pools: tuple[str, ...], size: int, pipelines: Ints) -> Floats:
        """Of a micro-batch of every pipeline over the fastest link between the hosts of two of the pools."""
        topology, found = self.problem.topology, np.full(len(pipelines), np.inf if len(pools) > 1 else 0.0)
        for a, b in combinations(pools, 2):
            link, specs = topology.link(a, b), (topology.pool(a), topology.pool(b))
            units = self.problem.workload.at(topology.crossing(a, b)).units
            sent = size * max(link.activation_ratio, link.gradient_ratio) * min(unit.boundary_bytes for unit in units)
            hosts = min(-(-spec.count // spec.chips_per_host) for spec in specs)
            found = np.minimum(found, sent / link.bytes_per_s * -(-pipelines // hosts))
        return found

    def _expected(self, costs: Sequence[StageCosts], limits: Floats, pipelines: Ints, stages: Ints) -> Floats:
        """If every stage is as its pool's others, with the fastest strategy under which half of what the first of them
        keeps fits."""
        largest = np.array([np.diff(cost.front[0].gradients).max() for cost in costs])
        depth, best = (stages.sum(axis=1) + 1) / 2, np.full(len(stages), np.inf)
        share = costs[0].micro_batch / self.problem.workload.global_batch  # of the batch, and so of an update
        for plain in range(min(len(cost.front) for cost in costs)):
            for word in costs[0].front[plain].units:
                units = [cost.front[plain].units[word] for cost in costs]
                models = np.array(
                    [u.seconds[-1] + c.front[plain].update[-1] * share for c, u in zip(costs, units, strict=True)]
                )
                period = 1 / (stages / models).sum(axis=1)
                part = period[:, None] / models
                held, gradients, owned, kept = (
                    np.array(each)
                    for each in zip(
                        *((c.front[plain].held[-1], c.front[plain].gradients[-1], c.front[plain].owned[-1], u.kept[-1])
                          for c, u in zip(costs, units, strict=True)),
                        strict=True,
                    )
                )  # fmt: skip
                taken = TAKEN * (pipelines[:, None] - 1) * largest
                copies = (SENT * part * gradients + taken) * (pipelines[:, None] > 1)
                need = part * (held + owned / pipelines[:, None]) + np.maximum(part * depth[:, None] * kept, copies)
                best = np.where((need <= limits).all(axis=1), np.minimum(best, period), best)
        return best


def _fullest(rooms: Sequence[int], most: int, cuts: int) -> Ints:
    """For each number of pipelines from 1 on, the most stages that each pool has for one of them."""
    found: Ints = np.minimum(np.array(rooms)[None, :] // np.arange(1, most + 1)[:, None], cuts)
    return found


def _every(fullest: Ints, cuts: int) -> Ints:
    """Rows of a number of pipelines and their stages by pool: those, or fewer."""
    rows = ((n, *each) for n, upto in enumerate(fullest, 1) for each in product(*(range(1, k + 1) for k in upto)))
    found = np.array(list(rows), dtype=np.int64).reshape(-1, 1 + fullest.shape[1])
    kept: Ints = found[found[:, 1:].sum(axis=1) <= cuts]
    return kept


def subsets(problem: Problem) -> list[tuple[str, ...]]:
    """Choices of the pools, in their order."""
    names = [pool.name for pool in problem.topology.pools]
    return [tuple(name for i, name in enumerate(names) if mask >> i & 1) for mask in range(1, 1 << len(names))]


def partitions(names: Sequence[str]) -> Iterator[list[tuple[str, ...]]]:
    """All ways to split the names into unordered parts."""
    if not names:
        yield []
        return
    first, rest = names[0], names[1:]
    for parts in partitions(rest):
        yield [(first,), *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], (first, *part), *parts[i + 1 :]]
