"""Where each pool's time went, from what its ranks measured.

The baseline is a chip that never waits and is as fast as the times say, at the pool's best tp. What pools do usefully,
weighted by how fast they are, is the efficiency against the ideal: none looks good because another one starves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from balancer.completion.idle import used_chips
from balancer.cost.ideal import best_tp, pool_sequences_per_s
from balancer.cost.times import units_time
from balancer.simulate.scenario import Scenario

ALL = "all"
"""In the place of a pool: all of them, weighted by their speeds."""


class PoolTime(NamedTuple):
    """Parts of a step of the chips that a plan uses: they sum to 1. `bubble` is waiting for others to compute, `link`
    for bytes on their way between pools, `host` what is between actions."""

    compute: float
    update: float
    bubble: float
    link: float
    host: float


_NOTHING = PoolTime(0.0, 0.0, 0.0, 0.0, 0.0)


class PoolLedger(NamedTuple):
    """Parts of a step of all a pool's chips, which sum to 1. `repeated` is what computation takes beyond the `useful`:
    what is made again, a slower tp, and chips slower than the times."""

    useful: float
    repeated: float
    update: float
    bubble: float
    link: float
    host: float
    idle: float


def pool_ledgers(scenario: Scenario, step_s: float, spent: Mapping[str, PoolTime]) -> dict[str, PoolLedger]:
    """Of the pools that have `spent` something or have nothing to do, and of `ALL`; nothing where nobody has."""
    used, useful_s = used_chips(scenario.plan), _useful_chip_s(scenario)
    pools = {pool.name: pool for pool in scenario.topology.pools if pool.name in spent or not used[pool.name]}
    if not spent.keys() & pools.keys():
        return {}
    found = {}
    for name, pool in pools.items():
        busy, useful = used[name] / pool.count, useful_s[name] / pool.count / step_s
        compute, update, bubble, link, host = (busy * part for part in spent.get(name, _NOTHING))
        found[name] = PoolLedger(useful, compute - useful, update, bubble, link, host, 1 - busy)
    speeds = {name: pool_sequences_per_s(pool, scenario.workload, scenario.times) for name, pool in pools.items()}
    whole = sum(speeds.values())
    weighted = zip(*([speeds[name] / whole * part for part in found[name]] for name in found), strict=True)
    return found | {ALL: PoolLedger(*map(sum, weighted))}


def _useful_chip_s(scenario: Scenario) -> Mapping[str, float]:
    """By pool, what its work takes at its best, in seconds of its chips."""
    costs, found = (scenario.workload, scenario.times), defaultdict[str, float](float)
    best = {name: best_tp(scenario.topology.pool(name), *costs) for name in scenario.plan.pools()}
    for place, stage in scenario.plan.stages():
        tp = best[stage.pool]
        each = units_time(scenario.times, scenario.workload, stage.pool, tp, stage.unit_indices())
        found[stage.pool] += scenario.plan.pipelines[place[0]].share * each.total_s * tp * scenario.time_scale
    return found
