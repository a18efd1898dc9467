"""What is simulated."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from balancer.cost.times import Times
from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.plan.plan import Place, Plan
from balancer.problem import Problem
from balancer.simulate.links import SimulatedLinks


class Pace(NamedTuple):
    """Of a stage that is not as fast as its chips: each computation takes `ratio` times as long, behind a pause."""

    ratio: float = 1.0
    pause_s: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """A completed plan. `time_scale` slows chips and links alike; `free_links` makes every link infinitely fast.
    `paces` are those of stages that have one of their own, in seconds of this scale."""

    plan: Plan
    problem: Problem
    time_scale: float = 1.0
    free_links: bool = False
    paces: Mapping[Place, Pace] = field(default_factory=dict)

    @property
    def topology(self) -> Topology:
        return self.problem.topology

    @property
    def workload(self) -> Workload:
        return self.problem.workload

    @property
    def times(self) -> Times:
        return self.problem.times

    @cached_property
    def unit_seconds(self) -> dict[Hashable, Sequence[float]]:
        """What units of stages add to their actions, as far as that was asked for."""
        return {}

    def links(self) -> SimulatedLinks:
        """Idle ones."""
        return SimulatedLinks(self.topology, self.time_scale, self.free_links)
