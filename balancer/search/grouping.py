"""Which pools form which pipelines, at which tp, in which order. What is left of a plan is cuts and shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import gcd

from balancer.cost.topology import PoolSpec
from balancer.cost.workload import LegalTp


@dataclass(frozen=True)
class Segment:
    """A pool's stages in each pipeline of a group: `stages` in a row, each of `tp` chips."""

    pool: str
    tp: int
    stages: int


@dataclass(frozen=True)
class Group:
    """`pipelines` equal pipelines over the same pools, in the order of the segments."""

    segments: tuple[Segment, ...]
    pipelines: int

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """(pool, tp) of each stage of one pipeline."""
        return tuple((segment.pool, segment.tp) for segment in self.segments for _ in range(segment.stages))


Grouping = tuple[Group, ...]


def groupings(
    pools: Sequence[PoolSpec], legal_tp: LegalTp, most_stages: int, most_pipelines: int
) -> Iterator[Grouping]:
    """Every grouping that uses all the pools: every tp per pool, every way to group pools, every order in a group,
    every number of equal pipelines that divides the stages of each of a group's pools."""
    for sizes in product(*([tp for tp in pool.tp_sizes() if not legal_tp(tp)] for pool in pools)):
        stages = {pool.name: pool.tp_groups(tp) for pool, tp in zip(pools, sizes, strict=True)}
        tps = {pool.name: tp for pool, tp in zip(pools, sizes, strict=True)}
        if not all(stages.values()):
            continue
        for parts in _partitions([pool.name for pool in pools]):
            options = [list(_groups(part, tps, stages, most_stages)) for part in parts]
            for grouping in product(*options):
                if sum(group.pipelines for group in grouping) <= most_pipelines:
                    yield grouping


def _groups(part: Sequence[str], tps: dict[str, int], stages: dict[str, int], most_stages: int) -> Iterator[Group]:
    common = gcd(*(stages[name] for name in part))
    for n in (n for n in range(1, common + 1) if common % n == 0):
        if sum(stages[name] for name in part) // n <= most_stages:
            for order in permutations(part):
                yield Group(tuple(Segment(name, tps[name], stages[name] // n) for name in order), n)


def _partitions(names: Sequence[str]) -> Iterator[list[list[str]]]:
    """All ways to split the names into unordered parts."""
    if not names:
        yield []
        return
    first, rest = names[0], names[1:]
    for parts in _partitions(rest):
        yield [[first], *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], [first, *part], *parts[i + 1 :]]
