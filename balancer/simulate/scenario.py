"""What is simulated."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.cost.times import Times
from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.simulate.links import SimulatedLinks


@dataclass(frozen=True)
class Scenario:
    """A completed plan. `time_scale` slows chips and links alike; `free_links` makes every link infinitely fast."""

    plan: Plan
    problem: Problem
    time_scale: float = 1.0
    free_links: bool = False

    @property
    def topology(self) -> Topology:
        return self.problem.topology

    @property
    def workload(self) -> Workload:
        return self.problem.workload

    @property
    def times(self) -> Times:
        return self.problem.times

    def links(self) -> SimulatedLinks:
        """Idle ones."""
        return SimulatedLinks(self.topology, self.time_scale, self.free_links)
