"""What mixing costs: pools together against each of them alone, and against the sum of their chips.

    python -m benchmarks.mixed [--json] [--job configs/runs/mixed.yaml] [--hold POOL=PART ...]

All pools are profiled, as `hetero profile` does. Each alone runs its own best plan for the same model, sequence length
and global batch; together they run the best plan (`free`), and the best single pipeline over all of them with zero
bubble (`forced`). All runs use the same standing ranks, links and time scale, one after another. `efficiency` is
tokens/s mixed over the sum alone; `ideal` is over all chips at their true speeds, never waiting; a ledger's terms sum
to 1 minus that, and those of a pool to 1.

Pools that are not emulated compute as fast as this machine does, and their true speeds are those that were measured of
them before the runs. `--hold` lets the ranks of a pool run so much of the time, while measured, alone and mixed
(benchmarks/held.py). Each pool then has a core to itself; `core_POOL` is what of it its ranks had in the `free` run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from balancer.completion.completion import complete
from balancer.cost.ideal import ideal_tokens_per_s
from balancer.cost.times import Times, UnitTime, datasheet_times
from balancer.errors import PlanError
from balancer.plan.plan import PipelinePlan, Place, Plan, StagePlan
from balancer.problem import Problem
from balancer.search.ledger import ledger
from balancer.search.missed import MeasuredStage, MeasuredStep
from balancer.search.pool_ledger import PoolTime, pool_ledgers
from balancer.search.search import search
from balancer.simulate.simulate import Prediction, simulate
from benchmarks.held import cpu_s, held, pids_of
from benchmarks.report import print_report
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.measuring import measure, profile
from hetero.job.planning.problem import problem
from hetero.job.run.spec import fleet_links, run_spec
from hetero.monitoring.record import BUSY
from hetero.words.step import HostStep

Steps = Sequence[Sequence[HostStep]]
FREE, FORCED = "free", "forced"


@dataclass(frozen=True)
class Ran:
    """A plan and its steps but for the first, which warms up. `cores` are those that a pool's ranks were busy on in the
    mean of all steps, by pool."""

    plan: Plan
    steps: Steps
    cores: Mapping[str, float]

    @property
    def step_s(self) -> float:
        return median(_seconds(hosts) for hosts in self.steps)

    @property
    def overruns(self) -> int:
        return sum(any(host.overrun for host in hosts) for hosts in self.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--job", type=Path, default=Path("configs/runs/mixed.yaml"))
    parser.add_argument(
        "--hold", action="append", default=[], type=_part, metavar="POOL=PART", help="let it run so much of the time"
    )
    options = parser.parse_args()
    job, hold = load_job(options.job, ()), dict(options.hold)
    if unknown := hold.keys() - job.pools.keys():
        parser.error(f"--hold {min(unknown)}: the job's pools are {', '.join(job.pools)}")
    with tempfile.TemporaryDirectory() as folder, Session.start(_fleet(job), LocalAgents()) as session:
        os.environ["XDG_CACHE_HOME"] = folder  # what is measured of a held pool is for no other run
        with held(session, hold):
            figures, void = compare(job, session, prepare(job.data, Path(folder)))
    print_report("mixed", figures, emulated=job.emulated, void=void, quiet=options.json)


def _part(text: str) -> tuple[str, float]:
    """Raises ValueError."""
    pool, part = text.split("=")
    if not 0 < float(part) < 1:
        raise ValueError(text)
    return pool, float(part)


def compare(job: Job, session: Session, text: Prepared) -> tuple[dict[str, float], str | None]:
    """The figures, and why they are void if they are."""
    profile(job, session, lambda note: None)
    measured = measure(job, session, None)
    assert measured.times is not None
    scale = measured.time_scale
    session.relink(fleet_links(job, scale, measured.probed))
    asked = problem(job, measured.times, measured.probed, session.usable_bytes, measured.profile)
    alone = {name: asked.topology.only(frozenset({name})) for name in job.pools}
    plans = {name: search(replace(asked, topology=chips)).plan for name, chips in alone.items()}
    plans |= {FREE: search(asked).plan, FORCED: one_pipeline(asked)}
    ran = {
        name: _run(job, session, text, plan.model_copy(update={"epoch": epoch}), scale)
        for epoch, (name, plan) in enumerate(plans.items())
    }
    figures = _figures(job, replace(asked, times=_true_times(job, asked)), ran, scale)
    overruns = sum(each.overruns for each in ran.values())
    return figures, f"{overruns} steps overran their modelled time" if overruns else None


def one_pipeline(asked: Problem) -> Plan:
    """The fastest with zero bubble that goes once over all pools, a stage each: from every order of them, boundaries
    move while that helps."""
    found = [
        best
        for order in permutations(asked.topology.pools)
        if (best := _settled(asked, [(pool.name, pool.tp or pool.count) for pool in order])) is not None
    ]
    return min(found, key=lambda prediction: prediction.step_s).plan


def _settled(asked: Problem, stages: Sequence[tuple[str, int]]) -> Prediction | None:
    cuts = asked.workload.cuts
    speeds = [1 / asked.times.lookup(*stage, asked.workload.units[1].kind).total_s for stage in stages]
    ends = [round(sum(speeds[: s + 1]) / sum(speeds) * (len(cuts) - 1)) for s in range(len(stages) - 1)]
    best = _predicted(asked, stages, [cuts[end] for end in ends])
    moved = True
    while moved:
        moved = False
        for steps in product((-1, 0, 1), repeat=len(ends)):
            tried = [end + step for end, step in zip(ends, steps, strict=True)]
            found = _predicted(asked, stages, [cuts[min(max(end, 0), len(cuts) - 1)] for end in tried])
            if found is not None and (best is None or found.step_s < best.step_s):
                best, ends, moved = found, tried, True
    return best


def _predicted(asked: Problem, stages: Sequence[tuple[str, int]], ends: Sequence[int]) -> Prediction | None:
    """None where that is no plan."""
    bounds = [0, *ends, len(asked.workload.units)]
    placed = tuple(
        StagePlan(pool=pool, tp=tp, units=((bounds[s], bounds[s + 1]),)) for s, (pool, tp) in enumerate(stages)
    )
    pipeline = PipelinePlan(share=asked.workload.global_batch, micro_batch=asked.micro_batch, stages=placed)
    try:
        return simulate(complete(Plan(schedule="zero-bubble", pipelines=(pipeline,)), asked), asked)
    except PlanError:
        return None


def _figures(job: Job, true: Problem, ran: Mapping[str, Ran], scale: float) -> dict[str, float]:
    tokens = job.train.global_batch * job.data.seq_len
    alone = {name: tokens / ran[name].step_s for name in job.pools}
    figures: dict[str, float] = {}
    for name in (FREE, FORCED):
        figures |= {f"{key}_{name}": value for key, value in _of_mix(true, ran[name], sum(alone.values()), scale)}
    return {
        **figures,
        "link_ratio": figures[f"link_ratio_{FORCED}"],
        **{f"tokens_per_s_{name}_alone": speed for name, speed in alone.items()},
        **{f"core_{name}": ran[FREE].cores[name] for name, pool in job.pools.items() if pool.emulate is None},
        "layers": len(true.workload.units) // 2 - 1,
        "micro_batches": job.train.global_batch // job.train.micro_batch,
        "time_scale": scale,
    }


def _of_mix(true: Problem, ran: Ran, alone: float, scale: float) -> Iterable[tuple[str, float]]:
    speed = true.workload.global_batch * true.workload.seq_len / ran.step_s
    predicted = simulate(ran.plan, true, scale)
    yield "efficiency", speed / alone
    yield "ideal", speed * scale / ideal_tokens_per_s(true.topology, true.workload, true.times)
    yield "link_ratio", predicted.link_ratio
    yield "prediction_ratio", predicted.step_s / ran.step_s
    yield "tokens_per_s", speed
    yield "pipelines", len(ran.plan.pipelines)
    for term, value in ledger(predicted, measured_step(ran)).items():
        yield f"ledger_{term}", value
    for pool, parts in pool_ledgers(predicted.scenario, ran.step_s, pool_times(ran)).items():
        for term, value in parts._asdict().items():
            yield f"ledger_{pool}_{term}", value


def measured_step(ran: Ran) -> MeasuredStep:
    """What the stages' slowest ranks have told, in the median."""
    told: dict[Place, list[MeasuredStage]] = {}
    for hosts in ran.steps:
        for host in hosts:
            update_s, link_s = host.optimizer_s / host.ranks, host.bridge_wait_s / host.ranks
            for stage in host.stages:
                told.setdefault((stage.pipeline, stage.stage), []).append(
                    MeasuredStage(stage.compute_s, update_s, stage.wait_s, link_s)
                )
    stages = {place: MeasuredStage(*map(median, zip(*each, strict=True))) for place, each in told.items()}
    return MeasuredStep(ran.step_s, stages)


def pool_times(ran: Ran) -> dict[str, PoolTime]:
    """Of the ranks of each pool, over all steps."""
    found: dict[str, list[float]] = {}
    for hosts in ran.steps:
        step_s = _seconds(hosts)
        for host in hosts:
            update_s = host.optimizer_s
            compute_s = sum(getattr(host, part) for part in BUSY) - update_s
            spent = compute_s, update_s, host.bubble_s, host.bridge_wait_s
            whole = step_s * host.ranks
            so_far = found.setdefault(host.pool, [0.0] * 5)
            found[host.pool] = [a + b for a, b in zip(so_far, (*spent, whole - sum(spent)), strict=True)]
    return {pool: PoolTime(*(part / sum(parts) for part in parts)) for pool, parts in found.items()}


def _seconds(hosts: Sequence[HostStep]) -> float:
    return max(host.end - host.start for host in hosts)


def _true_times(job: Job, asked: Problem) -> Times:
    """What the emulated chips take, of which the planner knows only the datasheet's part and its own measurement; of
    chips that are there, that measurement."""
    believed = datasheet_times(asked.topology, asked.workload)

    def true(pool: str, tp: int, kind: str, micro_batch: int) -> UnitTime:
        emulate = job.pools[pool].emulate
        if emulate is None:
            return asked.times.lookup(pool, tp, kind, micro_batch)
        return believed.lookup(pool, tp, kind, micro_batch).slowed(1 / emulate.speed)

    return Times({}, true)


def _run(job: Job, session: Session, text: Prepared, plan: Plan, scale: float) -> Ran:
    """Trains the job's steps under a plan."""
    steps: list[Sequence[HostStep]] = []
    session.configure(run_spec(job, session.fleet, plan, text, scale))
    ranks = {pool: pids_of(session, pool) for pool in job.pools}
    before, began = {pool: cpu_s(pids) for pool, pids in ranks.items()}, perf_counter()
    session.run(job.train.steps, lambda _, hosts: steps.append(hosts))
    took_s = perf_counter() - began
    return Ran(plan, steps[1:], {pool: (cpu_s(pids) - before[pool]) / took_s for pool, pids in ranks.items()})


def _fleet(job: Job) -> Any:
    return fleet_of(job.pools, fleet_links(job))


if __name__ == "__main__":
    main()
