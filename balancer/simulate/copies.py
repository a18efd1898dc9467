"""How copies of a stage sum gradients and share parameters inside a pool whose hosts a fabric joins.

Each chip sends a sum on once, and is given a parameter once, however many copies there are: what a reduce-scatter and
an all-gather take. The copies of one host carry theirs side by side."""

from __future__ import annotations

from collections import Counter, defaultdict

from balancer.cost.topology import Topology
from balancer.plan.plan import Plan, Range, StagePlan
from balancer.simulate.links import LinkDirection

_Held = tuple[str, tuple[Range, ...]]


class CopyLinks:
    """Of a completed plan, made as they are asked for: one of each stage, for whatever it gives or is given."""

    def __init__(self, plan: Plan, topology: Topology, scale: float) -> None:
        self._topology, self._scale = topology, scale
        self._copies: defaultdict[_Held, Counter[int]] = defaultdict(Counter)
        self._links: dict[tuple[str, tuple[int, ...] | None], LinkDirection] = {}
        for _, stage in plan.stages():
            if self.concern(stage):
                self._copies[stage.pool, stage.units][self._host(stage)] += 1

    def concern(self, stage: StagePlan) -> bool:
        return self._topology.pool(stage.pool).fabric_bytes_per_s is not None

    def of(self, stage: StagePlan) -> LinkDirection:
        key = stage.pool, stage.chips
        if key not in self._links:
            pool, copies = self._topology.pool(stage.pool), self._copies[stage.pool, stage.units]
            rate = self._topology.inside_bytes_per_s(pool, len(copies), beside=copies[self._host(stage)])
            self._links[key] = LinkDirection(self._scale / (rate * stage.tp), 0.0)
        return self._links[key]

    def _host(self, stage: StagePlan) -> int:
        return self._topology.pool(stage.pool).host_of(stage.chips[0] if stage.chips else 0)
