"""Where each pool's time went, from what its ranks measured.

The baseline is a chip that never waits and is as fast as the times say, at the pool's best tp. What pools do usefully,
weighted by how fast they are, is the efficiency against the ideal: none looks good because another one starves.
"""

from __future__ import annotations

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
    """Of the pools that have `spent` something, and of `ALL`."""
    pools = {pool.name: pool for pool in scenario.topology.pools if pool.name in spent}
    used, useful = used_chips(scenario.plan), dict.fromkeys(pools, 0.0)
    for place, stage in scenario.plan.stages():
        if stage.pool in pools:
            tp = best_tp(pools[stage.pool], scenario.workload, scenario.times)
            each = units_time(scenario.times, scenario.workload, stage.pool, tp, stage.unit_indices())
            useful[stage.pool] += scenario.plan.pipelines[place[0]].share * each.total_s * tp * scenario.time_scale
    found = {}
    for name, pool in pools.items():
        busy, done = used[name] / pool.count, useful[name] / pool.count / step_s
        compute, update, bubble, link, host = (busy * part for part in spent[name])
        found[name] = PoolLedger(done, compute - done, update, bubble, link, host, 1 - busy)
    speeds = {n: pool_sequences_per_s(pool, scenario.workload, scenario.times) for n, pool in pools.items()}
    whole = sum(speeds.values())
    weighted = zip(*([speeds[name] / whole * part for part in found[name]] for name in found), strict=True)
    return found | {ALL: PoolLedger(*map(sum, weighted))} if found else {}
