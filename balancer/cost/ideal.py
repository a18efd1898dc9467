"""The speed that no plan can beat: all FLOPs over the sum of the chips' speeds."""

from __future__ import annotations

from balancer.cost.times import Times, model_time
from balancer.cost.topology import PoolSpec, Topology
from balancer.cost.workload import Workload
from balancer.errors import CostError


def best_tp(pool: PoolSpec, workload: Workload, times: Times) -> int:
    """At which a pool is fastest. Raises CostError if no tp of it has times."""
    known = [tp for tp in pool.tp_sizes() if times.knows(pool.name, tp, workload)]
    if not known:
        rule = f"no tp of {list(pool.tp_sizes())} was measured for pool {pool.name}"
        raise CostError("times", pool.name, rule, "measure the pool, or give datasheet times")
    return min(known, key=lambda tp: tp * model_time(times, workload, pool.name, tp, workload.global_batch))


def pool_sequences_per_s(pool: PoolSpec, workload: Workload, times: Times) -> float:
    """A pool with all its chips busy all the time, at its best tp, with micro-batches as large as can be. Raises
    CostError if no tp of it has times."""
    tp = best_tp(pool, workload, times)
    return pool.count / tp / model_time(times, workload, pool.name, tp, workload.global_batch)


def ideal_tokens_per_s(topology: Topology, workload: Workload, times: Times) -> float:
    return workload.seq_len * sum(pool_sequences_per_s(pool, workload, times) for pool in topology.pools)
