"""What each pool of a plan adds to it, and whether that is worth it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from balancer.errors import BalancerError
from balancer.search.search import search
from hetero.job.planning.plan_job import Planned

UNCERTAIN = 0.01
"""Of a step, if nobody has measured how much one differs from the next."""


@dataclass(frozen=True)
class PoolWorth:
    """`adds` is by how much the job is faster with the pool than under the best plan of all others, which takes
    `without_s` a step; both None where no plan fits without it. `least` is what could as well be chance."""

    pool: str
    chips: int
    without_s: float | None
    adds: float | None
    least: float

    @property
    def is_worth_it(self) -> bool:
        return self.adds is None or self.adds > self.least


def pools_worth(planned: Planned) -> Iterator[PoolWorth]:
    """Of each pool that the balancer could leave out, one search each; of a plan by hand nothing is said."""
    asked = planned.prediction.scenario.problem
    names = [pool.name for pool in asked.topology.pools]
    if planned.found is None or len(names) < 2:
        return
    for pool in asked.topology.pools:
        try:
            without_s = search(asked.only(frozenset(names) - {pool.name})).prediction.step_s
        except BalancerError:
            without_s = None
        adds = None if without_s is None else without_s / planned.prediction.step_s - 1
        yield PoolWorth(pool.name, pool.count, without_s, adds, _least(planned))


def _least(planned: Planned) -> float:
    band = planned.band
    return UNCERTAIN if band is None else (band.high_s - band.low_s) / 2 / band.mean_s
