"""What a plan is wanted for: the question that completion, search and simulation answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations

from balancer.cost.times import Times
from balancer.cost.topology import Topology
from balancer.cost.workload import LegalTp, Workload
from balancer.options import BalanceOptions
from balancer.schedule.registry import searched_schedules

MOST_CHOSEN = 16
"""Sequences of the largest micro-batch that a search tries: a larger one keeps chips no busier."""


def _any_tp(tp: int) -> str | None:
    return None


@dataclass(frozen=True)
class Problem:
    """A `workload` on the chips and links of a `topology`, whose units take `times` there (none, where nobody has told
    them yet). A search gives pipelines the `micro_batch`, unless it may choose; a plan by hand has its own."""

    topology: Topology
    workload: Workload
    times: Times = field(default_factory=lambda: Times({}))
    legal_tp: LegalTp = _any_tp
    options: BalanceOptions = field(default_factory=BalanceOptions)
    micro_batch: int = 1

    @property
    def micro_batch_sizes(self) -> tuple[int, ...]:
        """To choose from, in sequences."""
        if "micro_batch" not in self.options.choose:
            return (self.micro_batch,)
        batch = self.workload.global_batch
        return tuple(size for size in range(1, min(batch, MOST_CHOSEN) + 1) if batch % size == 0)

    @property
    def schedules(self) -> tuple[str, ...]:
        """To choose from."""
        return searched_schedules() if "schedule" in self.options.choose else (self.options.schedule,)

    def knows(self, pool: str, tp: int) -> bool:
        """Whether there are times of every unit there."""
        return self.times.knows(pool, tp, self.workload)

    def subsets(self) -> Iterator[Problem]:
        """The same on every choice of the pools, the larger ones first."""
        names = [pool.name for pool in self.topology.pools]
        for size in range(len(names), 0, -1):
            for chosen in combinations(names, size):
                yield self.only(frozenset(chosen))

    def only(self, pools: frozenset[str]) -> Problem:
        """The same without the other pools."""
        return replace(self, topology=self.topology.only(pools))
