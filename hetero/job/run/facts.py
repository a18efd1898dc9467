"""What turns a run's seconds into rates."""

from __future__ import annotations

from pathlib import Path

from backends.chip import load_chip
from hetero.job.job import Job
from hetero.job.planning.plan_job import Planned
from hetero.job.planning.problem import workload
from hetero.monitoring.record import PoolFacts, RunFacts
from hetero.monitoring.tracked import TrackedPool, TrackedRun


def run_facts(job: Job, planned: Planned, time_scale: float, started: float) -> RunFacts:
    """`started` is unix time. A pool's part of the model's FLOPs follows from its units and its pipelines' shares."""
    work, plan = workload(job), planned.plan
    total = sum(unit.forward_flops for unit in work.units)
    done, chips = dict.fromkeys(job.pools, 0.0), dict.fromkeys(job.pools, 0)
    for pipeline in plan.pipelines:
        for stage in pipeline.stages:
            done[stage.pool] += pipeline.share * sum(work.units[unit].forward_flops for unit in stage.unit_indices())
            chips[stage.pool] += stage.tp
    pools = {
        name: PoolFacts(
            family=pool.family,
            chip=pool.chip,
            chips=chips[name],
            flops_share=done[name] / (total * work.global_batch),
            peak_flops=load_chip(pool.chip).peak_flops[job.paced_as(name)],
            emulated=pool.emulate is not None,
        )
        for name, pool in job.pools.items()
    }
    return RunFacts(
        pools=pools,
        ranks=sum(chips.values()),
        flops_per_token=3 * total / work.seq_len,
        started=started,
        time_scale=time_scale,
        link_ratio=planned.prediction.link_ratio if job.emulated else None,
    )


def tracked_run(job: Job, run_dir: Path) -> TrackedRun:
    """What those who watch the run know of it before it starts."""
    pools = {
        name: TrackedPool(pool.family, pool.chip, pool.count, pool.emulate is not None)
        for name, pool in job.pools.items()
    }
    return TrackedRun(job.name, run_dir, pools, job.resolved())
