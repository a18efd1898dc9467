"""Every way to make equal pipelines of some pools, at once: how many, of how many stages, at which tp, and bounds on
what they take. No cut and no strategy makes them faster, and only a way that is passed over needs more memory.

With many chips the stages of several pools are as many as there is room for; the bounds hold for fewer all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from balancer.memory.memory import SLACK
from balancer.problem import Problem
from balancer.search.expected import ExpectedPeriod
from balancer.search.joined import JoinedPools
from balancer.search.layouts import Layouts
from balancer.search.stage_costs import StageCosts, least_part

Ints = NDArray[np.int64]
MANY = 4096
"""Layouts of some pools that are listed with fewer stages than there is room for."""


class LayoutSpace:
    """All layouts of a problem, by the pools that they join. It is `whole` unless some with fewer stages are left out;
    `passed_over` are those that fit into no memory."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.costs: dict[tuple[str, int, int], StageCosts] = {}
        self.passed_over = 0
        self.whole = True
        self._found: dict[tuple[str, ...], JoinedPools] = {}

    def of(self, pools: tuple[str, ...]) -> JoinedPools:
        if pools not in self._found:
            self._found[pools] = JoinedPools(list(self._layouts(pools)))
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
        return sum(found.ways for found in self._found.values())

    def _layouts(self, pools: tuple[str, ...]) -> Iterator[Layouts]:
        problem, specs = self.problem, [self.problem.topology.pool(name) for name in pools]
        legal = ([tp for tp in spec.tp_sizes() if self._can(spec.name, tp)] for spec in specs)
        for tps in product(*legal):
            rooms = tuple(spec.tp_groups(tp) for spec, tp in zip(specs, tps, strict=True))
            if not all(rooms):
                continue
            for size in problem.micro_batch_sizes:
                cuts = len(problem.workload.cuts) - 1
                ways, whole = _ways(rooms, min(*rooms, problem.workload.global_batch // size), cuts)
                self.whole = self.whole and whole
                if len(ways):
                    yield from self._bounded(pools, tps, size, ways)

    def _can(self, pool: str, tp: int) -> bool:
        return not self.problem.legal_tp(tp) and self.problem.knows(pool, tp)

    def _bounded(self, pools: tuple[str, ...], tps: tuple[int, ...], size: int, ways: Ints) -> Iterator[Layouts]:
        costs = [self.cost(pool, tp, size) for pool, tp in zip(pools, tps, strict=True)]
        limits = np.array([cost.pool.memory_bytes / (1 + SLACK) for cost in costs])
        needed = np.min([cost.least_bytes for cost in costs], axis=0).sum()
        fits = ways[:, 1:] @ limits >= needed
        self.passed_over += int((~fits).sum())
        if not fits.any():
            return
        pipelines, stages = ways[fits, 0], ways[fits, 1:]
        rates = np.array([1 / cost.least_s[-1] for cost in costs])
        blocks = np.min([cost.least_blocks_s for cost in costs], axis=0)
        period_s = np.maximum(least_part(costs) / (stages @ rates), blocks.max())
        expected = ExpectedPeriod(self.problem, tuple(costs))
        yield Layouts(pools, tps, size, pipelines, stages, period_s, float(blocks.sum()), expected)


@lru_cache(maxsize=256)
def _ways(rooms: tuple[int, ...], most: int, cuts: int) -> tuple[Ints, bool]:
    """Rows of a number of pipelines, up to `most`, and their stages by pool, no more than there are cuts: all, or of
    too many those with as many stages as there is room for."""
    fullest: Ints = np.minimum(np.array(rooms)[None, :] // np.arange(1, most + 1)[:, None], cuts)
    if len(rooms) > 1 and np.prod(fullest.astype(float), axis=1).sum() > MANY:
        return np.column_stack([np.arange(1, len(fullest) + 1), fullest]), False
    blocks = [np.indices(upto).reshape(len(upto), -1).T + 1 for upto in fullest]
    numbers = np.repeat(np.arange(1, len(blocks) + 1), [len(block) for block in blocks])
    stages = np.concatenate(blocks) if blocks else np.zeros((0, len(rooms)), dtype=np.int64)
    kept = stages.sum(axis=1) <= cuts
    return np.column_stack([numbers, stages])[kept], True


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
