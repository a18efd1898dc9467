"""A guess at how long layouts take from micro-batch to micro-batch, without a cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from balancer.memory.memory import SLACK
from balancer.problem import Problem
from balancer.search.stage_costs import SENT, TAKEN, StageCosts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ExpectedPeriod:
    """Of some pools at given tps and one size of micro-batch, which `costs` have; given how many `pipelines` there are
    and their `stages` by pool, of one layout in each row."""

    problem: Problem
    costs: tuple[StageCosts, ...]

    def period_s(self, pipelines: Ints, stages: Ints) -> Floats:
        """Infinite where the model cannot be cut so often, or nothing is expected to fit."""
        found = np.maximum(self._computing_s(pipelines, stages), self._crossing_s(pipelines))
        found[stages.sum(axis=1) >= len(self.costs[0].cuts)] = np.inf
        return found

    def _computing_s(self, pipelines: Ints, stages: Ints) -> Floats:
        """If every stage is as its pool's others, with the fastest strategy under which half of what the first of them
        keeps fits."""
        work, held, gradients, owned, kept, largest = self._models
        period = 1 / (stages @ (1 / work).T)
        part = period[:, :, None] / work
        depth, copies = ((stages.sum(axis=1) + 1) / 2)[:, None, None], pipelines[:, None, None]
        summing = (SENT * part * gradients + TAKEN * (copies - 1) * largest) * (copies > 1)
        need = part * (held + owned / copies) + np.maximum(part * depth * kept, summing)
        limits = np.array([cost.pool.memory_bytes / (1 + SLACK) for cost in self.costs])
        found: Floats = np.where((need <= limits).all(axis=2), period, np.inf).min(axis=1)
        return found

    @cached_property
    def _models(self) -> Floats:
        """Each of `StageCosts.models`, by strategy and pool."""
        fewest = min(len(cost.front) for cost in self.costs)
        every = np.stack([cost.models[:fewest] for cost in self.costs], axis=-1)
        return every.reshape(-1, *every.shape[2:]).transpose(1, 0, 2)

    def _crossing_s(self, pipelines: Ints) -> Floats:
        """Of a micro-batch of every pipeline over the fastest link between the hosts of two of the pools."""
        topology, pools = self.problem.topology, [cost.pool for cost in self.costs]
        found = np.full(len(pipelines), np.inf if len(pools) > 1 else 0.0)
        for a, b in combinations(pools, 2):
            link = topology.link(a.name, b.name)
            crossing = self.problem.workload.at(topology.crossing(a.name, b.name))
            size = crossing.least_boundary_bytes * self.costs[0].micro_batch
            sent = size * max(link.activation_ratio, link.gradient_ratio)
            hosts = min(-(-pool.count // pool.chips_per_host) for pool in (a, b))
            found = np.minimum(found, sent / link.bytes_per_s * -(-pipelines // hosts))
        return found
