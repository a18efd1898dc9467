"""What mixing costs: three emulated pools together against each of them alone, and against the sum of their chips.

    python -m benchmarks.mixed [--json] [--job configs/runs/mixed.yaml]

Each pool alone runs its own best plan for the same model, sequence length and global batch. All runs use the same
standing ranks and the same time scale, one after another. `efficiency` is tokens/s mixed over the sum alone;
`efficiency_vs_ideal` is over all chips at their true speeds, never waiting; the ledger's terms sum to 1 minus that.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from balancer.cost.ideal import ideal_tokens_per_s
from balancer.cost.times import Times, UnitTime, datasheet_times
from balancer.cost.topology import Topology
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.search.ledger import ledger
from balancer.search.search import search
from balancer.simulate.simulate import simulate
from benchmarks.report import print_report
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.measuring import measure
from hetero.job.planning.problem import problem, topology, workload
from hetero.job.run.spec import fleet_links, run_spec
from hetero.words.step import HostStep

Steps = Sequence[tuple[float, bool]]
"""(seconds, overrun) of each step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--job", type=Path, default=Path("configs/runs/mixed.yaml"))
    options = parser.parse_args()
    job = load_job(options.job, ())
    with tempfile.TemporaryDirectory() as folder, Session.start(_fleet(job), LocalAgents()) as session:
        figures, void = compare(job, session, prepare(job.data, Path(folder)))
    print_report("mixed", figures, emulated=True, void=void, quiet=options.json)


def compare(job: Job, session: Session, text: Prepared) -> tuple[dict[str, float], str | None]:
    """The figures, and why they are void if they are."""
    chips = topology(job)
    measured = measure(job, session, None)
    assert measured.times is not None
    session.relink(fleet_links(job, measured.time_scale))
    groups = [frozenset({name}) for name in job.pools] + [frozenset(job.pools)]
    runs: dict[frozenset[str], tuple[Plan, Steps]] = {}
    for epoch, names in enumerate(groups):
        plan = _plan(job, chips.only(names), measured.times, epoch)
        runs[names] = plan, _run(job, session, text, plan, measured.time_scale)
    speeds = {names: _tokens_per_s(job, steps) for names, (_, steps) in runs.items()}
    plan, steps = runs[groups[-1]]
    figures = _figures(job, chips, plan, median(seconds for seconds, _ in steps), speeds, measured.time_scale)
    overruns = sum(overrun for _, found in runs.values() for _, overrun in found)
    return figures, f"{overruns} steps overran their modelled time" if overruns else None


def _figures(
    job: Job, chips: Topology, plan: Plan, step_s: float, speeds: Mapping[frozenset[str], float], scale: float
) -> dict[str, float]:
    work, true = workload(job), _true_times(job, chips)
    mixed = speeds[frozenset(job.pools)]
    alone = {name: speeds[frozenset({name})] for name in job.pools}
    predicted = simulate(plan, Problem(chips, work, true), scale)
    return {
        "efficiency": mixed / sum(alone.values()),
        "efficiency_vs_ideal": mixed * scale / ideal_tokens_per_s(chips, work, true),
        **{f"ledger_{term}": value for term, value in ledger(predicted, step_s).items()},
        "link_ratio": predicted.link_ratio,
        "tokens_per_s": mixed,
        **{f"tokens_per_s_{name}_alone": speed for name, speed in alone.items()},
        "prediction_ratio": predicted.step_s / step_s,
        "layers": len(workload(job).units) // 2 - 1,
        "micro_batches": job.train.global_batch // job.train.micro_batch,
        "pipelines": len(plan.pipelines),
        "time_scale": scale,
    }


def _true_times(job: Job, chips: Topology) -> Times:
    """What the emulated chips take, of which the planner knows only the datasheet's part and its own measurement."""
    believed = datasheet_times(chips, workload(job))

    def true(pool: str, tp: int, kind: str, micro_batch: int) -> UnitTime:
        emulate, time = job.pools[pool].emulate, believed.lookup(pool, tp, kind, micro_batch)
        speed = emulate.speed if emulate else 1.0
        return time.slowed(1 / speed)

    return Times({}, true)


def _plan(job: Job, chips: Topology, times: Times, epoch: int) -> Plan:
    return search(replace(problem(job, times), topology=chips)).plan.model_copy(update={"epoch": epoch})


def _run(job: Job, session: Session, text: Prepared, plan: Plan, scale: float) -> Steps:
    """Trains the job's steps under a plan; the first one, which warms up, does not count."""
    steps: list[tuple[float, bool]] = []

    def record(step: int, hosts: Sequence[HostStep]) -> None:
        steps.append((max(h.end - h.start for h in hosts), any(h.overrun for h in hosts)))

    session.configure(run_spec(job, session.fleet, plan, text, scale))
    session.run(job.train.steps, record)
    return steps[1:]


def _tokens_per_s(job: Job, steps: Steps) -> float:
    return job.train.global_batch * job.data.seq_len / median(seconds for seconds, _ in steps)


def _fleet(job: Job) -> Any:
    return fleet_of(job.pools, fleet_links(job))


if __name__ == "__main__":
    main()
