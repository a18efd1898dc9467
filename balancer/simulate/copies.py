"""How copies of a stage sum gradients and share parameters inside a pool whose hosts a fabric joins.

Each chip sends a sum on once, and is given a parameter once, however many copies there are: what a reduce-scatter and
an all-gather take. The copies of one host carry theirs side by side. What grows with copies is the way round them all,
which every message goes step by step."""

from __future__ import annotations

from collections import Counter, defaultdict

from balancer.plan.plan import Range, StagePlan
from balancer.simulate.links import End, LinkDirection, Wire, host_of
from balancer.simulate.scenario import Scenario

_Held = tuple[str, tuple[Range, ...]]


class CopyLinks:
    """Made as they are asked for: one of each stage, for whatever it gives or is given."""

    def __init__(self, scenario: Scenario) -> None:
        self._topology, self._scale, self._free = scenario.topology, scenario.time_scale, scenario.free_links
        self._copies: defaultdict[_Held, Counter[End]] = defaultdict(Counter)
        self._links: dict[tuple[str, tuple[int, ...] | None], LinkDirection] = {}
        for _, stage in scenario.plan.stages():
            if self._topology.pool(stage.pool).fabric_bytes_per_s is not None:
                self._copies[stage.pool, stage.units][host_of(self._topology, stage)] += 1

    def join(self, one: StagePlan, other: StagePlan) -> bool:
        return one.pool == other.pool and (one.pool, one.units) in self._copies

    def of(self, stage: StagePlan) -> LinkDirection:
        key = stage.pool, stage.chips
        if key not in self._links:
            self._links[key] = LinkDirection(() if self._free else (self._wire(stage),), 0.0)
        return self._links[key]

    def _wire(self, stage: StagePlan) -> Wire:
        pool, copies = self._topology.pool(stage.pool), self._copies[stage.pool, stage.units]
        rate = self._topology.inside_bytes_per_s(pool, len(copies), beside=copies[host_of(self._topology, stage)])
        around_s = self._topology.around_s(pool, copies.total())
        return Wire(self._scale / (rate * stage.tp), self._scale * around_s)
