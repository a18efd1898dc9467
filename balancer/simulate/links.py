"""Links in simulated time: each direction carries one message after another, and a message arrives a latency later."""

from __future__ import annotations

from math import inf, isinf

from balancer.cost.topology import LinkSpec, Topology
from balancer.plan.plan import StagePlan

End = tuple[str, int]
"""A pool and a host of it; inside a pool, a chip of it."""


class Wire:
    """Carries one message after another, each for `message_s` and its bytes. `latest` is when the last one was handed
    over, `resumed` the same of those that were carried before it resumed."""

    __slots__ = "busy_s", "free_at", "latest", "message_s", "resumed", "seconds_per_byte"

    def __init__(self, seconds_per_byte: float, message_s: float = 0.0) -> None:
        self.seconds_per_byte, self.message_s = seconds_per_byte, message_s
        self.free_at = self.busy_s = 0.0
        self.latest = self.resumed = -inf


class LinkDirection:
    """From one end to another: over each wire on the way, on which a message leaves for the next one as it comes."""

    __slots__ = "latency_s", "wires"

    def __init__(self, wires: tuple[Wire, ...], latency_s: float) -> None:
        self.wires, self.latency_s = wires, latency_s

    @property
    def resumed(self) -> float:
        """A message that is handed over later comes after all that were carried before."""
        return max((wire.resumed for wire in self.wires), default=-inf)

    @property
    def free_at(self) -> float:
        """When all that was handed over is on its way."""
        return max((wire.free_at for wire in self.wires), default=0.0)

    def carry(self, bytes_: float, now: float) -> float:
        """When a message handed over now arrives. Call in order of time."""
        start = end = now
        for wire in self.wires:
            took = wire.message_s + bytes_ * wire.seconds_per_byte
            if wire.free_at > start:
                start = wire.free_at
            wire.free_at = start + took
            wire.busy_s += took
            wire.latest = now
            if wire.free_at > end:
                end = wire.free_at
        return end + self.latency_s

    def resume(self, other: LinkDirection, late_s: float) -> None:
        """Go on from where an equal direction stands, so much later."""
        for mine, theirs in zip(self.wires, other.wires, strict=True):
            mine.free_at, mine.busy_s, mine.resumed = theirs.free_at + late_s, theirs.busy_s, theirs.latest + late_s


class SimulatedLinks:
    """The links of a topology, made as they are asked for. Pools meet host by host, so all stages of two hosts share a
    link, and all links of a host to other pools share its network; inside a pool each pair of stages has the
    interconnect of its chips. Over `free` ones everything arrives at once."""

    def __init__(self, topology: Topology, time_scale: float = 1.0, free: bool = False) -> None:
        self._topology, self._scale, self._free = topology, time_scale, free
        self._specs: dict[tuple[str, str], LinkSpec] = {}
        self._links: dict[tuple[End, End], LinkDirection] = {}
        self._between_pools: list[Wire] = []
        self._inside: dict[tuple[str, bool], float] = {}
        self._networks: dict[tuple[End, bool], tuple[Wire, ...]] = {}

    def between(self, source: StagePlan, target: StagePlan) -> LinkDirection:
        """From one stage of a completed plan to another."""
        if source.pool == target.pool:
            ends = (source.pool, _first_chip(source)), (target.pool, _first_chip(target))
        else:
            ends = host_of(self._topology, source), host_of(self._topology, target)
        found = self._links.get(ends)
        if found is None:
            pairs = min(source.tp, target.tp) if source.pool == target.pool else 1
            found = self._links[ends] = self._made(*ends, pairs)
        return found

    def busiest_s(self) -> float:
        """How long the busiest direction between two pools has carried bytes."""
        return max((wire.busy_s for wire in self._between_pools), default=0.0)

    def _made(self, source: End, target: End, pairs: int) -> LinkDirection:
        if self._free:
            return LinkDirection((), 0.0)
        pools = source[0], target[0]
        if source[0] == target[0]:
            return LinkDirection((Wire(self._scale / (self._inside_bytes_per_s(source, target) * pairs)),), 0.0)
        if pools not in self._specs:
            self._specs[pools] = self._topology.link(*pools)
        link, latency_s = self._specs[pools], self._scale * self._specs[pools].latency_s
        wire = Wire(self._scale / link.bytes_per_s)
        self._between_pools.append(wire)
        return LinkDirection((*self._network(source, True), wire, *self._network(target, False)), latency_s)

    def _inside_bytes_per_s(self, source: End, target: End) -> float:
        """From chip to chip."""
        pool = self._topology.pool(source[0])
        key = pool.name, pool.host_of(source[1]) == pool.host_of(target[1])
        if key not in self._inside:
            self._inside[key] = self._topology.inside_bytes_per_s(pool, 1 if key[1] else 2)
        return self._inside[key]

    def _network(self, host: End, outward: bool) -> tuple[Wire, ...]:
        """One direction of what a host has for all its links to other pools, where that says how much it carries."""
        if (host, outward) not in self._networks:
            rate = self._topology.pool(host[0]).network_bytes_per_s
            self._networks[host, outward] = () if isinf(rate) else (Wire(self._scale / rate),)
        return self._networks[host, outward]


def host_of(topology: Topology, stage: StagePlan) -> End:
    """Where a stage's messages to other pools leave and arrive."""
    return stage.pool, topology.pool(stage.pool).host_of(_first_chip(stage))


def _first_chip(stage: StagePlan) -> int:
    return stage.chips[0] if stage.chips else 0
