"""What turns a run's seconds into rates."""

from __future__ import annotations

from pathlib import Path

from hetero.cluster.options import named_pools
from hetero.job.job import Job
from hetero.job.planning.plan_job import Planned
from hetero.job.planning.problem import topology, workload
from hetero.monitoring.record import Assignment, RunFacts
from hetero.monitoring.tracked import TrackedRun


def run_facts(job: Job, planned: Planned, time_scale: float, started: float) -> RunFacts:
    """`started` is unix time. A pool's part of the model's FLOPs follows from its units and its pipelines' shares."""
    work, plan = workload(job), planned.plan
    total = sum(unit.model_flops for unit in work.units)
    done, chips = dict.fromkeys(job.pools, 0.0), dict.fromkeys(job.pools, 0)
    for pipeline in plan.pipelines:
        for stage in pipeline.stages:
            done[stage.pool] += pipeline.share * sum(work.units[unit].model_flops for unit in stage.unit_indices())
            chips[stage.pool] += stage.tp
    peak = {pool.name: pool.chip.peak_flops[pool.pace] for pool in topology(job).pools}
    return RunFacts(
        pools={
            name: Assignment(pool, chips[name], done[name] / (total * work.global_batch), peak[name])
            for name, pool in named_pools(job.pools).items()
        },
        flops_per_token=total / work.seq_len,
        started=started,
        time_scale=time_scale,
        link_ratio=planned.prediction.link_ratio if job.emulated else None,
    )


def tracked_run(job: Job, run_dir: Path) -> TrackedRun:
    """What those who watch the run know of it before it starts."""
    return TrackedRun(job.name, run_dir, named_pools(job.pools), job.resolved())
