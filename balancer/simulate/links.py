"""Links in simulated time: each direction carries one message after another, and a message arrives a latency later."""

from __future__ import annotations

from balancer.cost.topology import Topology
from balancer.plan.plan import StagePlan

_End = tuple[str, int]


class Wire:
    """One direction between two ends."""

    def __init__(self, seconds_per_byte: float, latency_s: float) -> None:
        self.seconds_per_byte, self.latency_s = seconds_per_byte, latency_s
        self.free_at = self.busy_s = 0.0

    def carry(self, bytes_: float, now: float) -> float:
        """When a message handed over now arrives. Call in order of time."""
        self.busy_s += bytes_ * self.seconds_per_byte
        self.free_at = max(self.free_at, now) + bytes_ * self.seconds_per_byte
        return self.free_at + self.latency_s


class Wires:
    """The wires of a topology, made as they are asked for. Pools meet host by host, so all stages of two hosts share a
    wire; inside a pool each pair of stages has the interconnect of its chips."""

    def __init__(self, topology: Topology, time_scale: float = 1.0, free: bool = False) -> None:
        self._topology, self._scale = topology, 0.0 if free else time_scale
        self._wires: dict[tuple[_End, _End], Wire] = {}

    def between(self, source: StagePlan, target: StagePlan) -> Wire:
        """From one stage of a completed plan to another."""
        inside = source.pool == target.pool
        ends = (self._end(source, inside), self._end(target, inside))
        if ends not in self._wires:
            link = self._topology.link(source.pool, target.pool)
            lanes = min(source.tp, target.tp) if inside else 1
            self._wires[ends] = Wire(self._scale / (link.bytes_per_s * lanes), self._scale * link.latency_s)
        return self._wires[ends]

    def busiest_s(self) -> float:
        """How long the busiest direction between two pools has carried bytes."""
        return max((wire.busy_s for (one, other), wire in self._wires.items() if one[0] != other[0]), default=0.0)

    def _end(self, stage: StagePlan, inside: bool) -> _End:
        chip = stage.chips[0] if stage.chips else 0
        return stage.pool, chip if inside else self._topology.pool(stage.pool).host_of(chip)
