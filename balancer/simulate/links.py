"""Links in simulated time: each direction carries one message after another, and a message arrives a latency later."""

from __future__ import annotations

from balancer.cost.topology import Topology
from balancer.plan.plan import StagePlan

_End = tuple[str, int]


class LinkDirection:
    """One direction between two ends."""

    def __init__(self, seconds_per_byte: float, latency_s: float) -> None:
        self.seconds_per_byte, self.latency_s = seconds_per_byte, latency_s
        self.free_at = self.busy_s = 0.0

    def carry(self, bytes_: float, now: float) -> float:
        """When a message handed over now arrives. Call in order of time."""
        self.busy_s += bytes_ * self.seconds_per_byte
        self.free_at = max(self.free_at, now) + bytes_ * self.seconds_per_byte
        return self.free_at + self.latency_s


class SimulatedLinks:
    """The links of a topology, made as they are asked for. Pools meet host by host, so all stages of two hosts share a
    link; inside a pool each pair of stages has the interconnect of its chips."""

    def __init__(self, topology: Topology, time_scale: float = 1.0, free: bool = False) -> None:
        self.topology, self.scale = topology, 0.0 if free else time_scale
        self._links: dict[tuple[_End, _End], LinkDirection] = {}

    def between(self, source: StagePlan, target: StagePlan) -> LinkDirection:
        """From one stage of a completed plan to another."""
        inside = source.pool == target.pool
        ends = (self._end(source, inside), self._end(target, inside))
        if ends not in self._links:
            link = self.topology.link(source.pool, target.pool)
            rate = self._inside_bytes_per_s(source, target) if inside else link.bytes_per_s
            self._links[ends] = LinkDirection(self.scale / rate, self.scale * link.latency_s)
        return self._links[ends]

    def _inside_bytes_per_s(self, source: StagePlan, target: StagePlan) -> float:
        """Chip by chip, each of the smaller group to one of the larger."""
        pool = self.topology.pool(source.pool)
        hosts = {pool.host_of(stage.chips[0]) for stage in (source, target) if stage.chips}
        return self.topology.inside_bytes_per_s(pool, max(1, len(hosts))) * min(source.tp, target.tp)

    def busiest_s(self) -> float:
        """How long the busiest direction between two pools has carried bytes."""
        between_pools = [direction for (one, other), direction in self._links.items() if one[0] != other[0]]
        return max((direction.busy_s for direction in between_pools), default=0.0)

    def _end(self, stage: StagePlan, inside: bool) -> _End:
        chip = stage.chips[0] if stage.chips else 0
        return stage.pool, chip if inside else self.topology.pool(stage.pool).host_of(chip)
