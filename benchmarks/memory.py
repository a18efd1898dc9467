"""What a plan says that its chips will hold against the tensors that they hold.

    python -m benchmarks.memory [--json] [--only NAME ...] [--detail] [--stand-in]

Ranks of three emulated pools run two steps of each plan and count the bytes of the tensors that are alive
(`benchmarks/counted.py`). That is held against the bytes of tensors that `balancer/memory/` predicts for the rank's
stage: without the allocator's slack and what a library takes for communicators, for these are no tensors. `memory_mape`
is the mean over all ranks of all plans of |predicted - counted| / counted, `memory_worst` the largest, signed: below 0
where less was predicted than there was. `held_out_mape` and `held_out_worst` are those of plans that the model of
memory was not made with. `over_limit_plans` are plans called legal, of both kinds, under which a rank held more than
its chip offers, each chip being given what the plan predicts, slack included, and no byte more. It says nothing of a
real chip's allocator. gloo does not tell when a message has left, so what stages send inside a pool is there until the
end of the step, and counts, where a chip would have let it go: plans of pp are short by some boundary tensors.

`selective_saved` and `full_saved` are the parts of the fullest chip's peak, counted, that plans which recompute save
against one that does not; `sliced_logits_saved` that of a head with 65,536 entries. `selective_step_ratio` and
`full_step_ratio` are CPU seconds of forward and backward over those without recompute (`benchmarks/recompute.py`).

`--stand-in` runs other plans, on chips that torch_npu takes for real (`tests/stand_in`): what is held against the
prediction is its own allocator's peak.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from balancer.memory.memory import stage_bytes
from balancer.plan.plan import Plan
from benchmarks.counted import Counted
from benchmarks.memory_plans import RECOMPUTED, STEPS, Case, held_out, known, stand_in
from benchmarks.recompute import sliced_logits_saved, step_ratios
from benchmarks.report import print_report
from hetero.cluster.control.instructions import CheckpointWritten
from hetero.cluster.fleet import Programs
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.planning.problem import workload
from hetero.job.run.spec import fleet_links, run_spec
from hetero.monitoring.notice import Notice
from tests.stand_in.ascend import machine

NO_PACE = 1e-9


@dataclass(frozen=True)
class Found:
    case: str
    place: str
    counted: int
    need: Any

    @property
    def error(self) -> float:
        return (self.need.tensors - self.counted) / self.counted


class Bench:
    """Standing ranks, which run one plan after another."""

    def __init__(self, text: Prepared) -> None:
        self._text, self._epoch = text, -1
        self._told: list[Notice] = []
        self.session: Session

    def hear(self, notice: Notice | CheckpointWritten) -> None:
        if isinstance(notice, Notice) and notice.kind == Counted.kind:
            self._told.append(notice)

    def run(self, case: Case) -> list[Found]:
        self._epoch += 1
        self._told.clear()
        job, plan = case.job, case.plan.model_copy(update={"epoch": self._epoch})
        self.session.configure(run_spec(job, self.session.fleet, plan, self._text, NO_PACE))
        self.session.run(STEPS, lambda *_: None)
        return [_found(case, plan, notice) for notice in self._told if notice.step == STEPS - 1]


def _found(case: Case, plan: Plan, notice: Notice) -> Found:
    place = notice.data["pipeline"], notice.data["stage"]
    precision, bridge = case.job.precision_of(str(notice.pool)), case.job.bridge
    crossing = bridge.sync_bucket_bytes, bridge.codecs_between
    need = stage_bytes(workload(case.job), plan, *place, precision, None, *crossing)
    return Found(case.name, f"{notice.rank} of {place}", notice.data["peak"], need)


def measure(chosen: Sequence[Case]) -> list[Found]:
    job = chosen[0].job
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(prepare(job.data, Path(folder)))
        fleet = replace(fleet_of(job.pools, fleet_links(job)), programs=Programs(rank="benchmarks.counted:main"))
        with Session.start(fleet, LocalAgents(), bench.hear) as bench.session:
            return [found for case in chosen for found in bench.run(case)]


def figures_of(found: Sequence[Found], prefix: str) -> dict[str, float]:
    if not found:
        return {}
    return {
        f"{prefix}_mape": mean(abs(one.error) for one in found),
        f"{prefix}_worst": max((one.error for one in found), key=abs),
    }


def _recompute_figures(found: Sequence[Found]) -> dict[str, float]:
    peak = {way: max(one.counted for one in found if one.case == name) for way, name in RECOMPUTED.items()}
    saved = {f"{way}_saved": 1 - peak[way] / peak["none"] for way in ("selective", "full")}
    return {**saved, "sliced_logits_saved": sliced_logits_saved(), **step_ratios()}


def over_limit(found: Iterable[Found]) -> set[str]:
    return {one.case for one in found if one.counted > one.need.total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", help="leave the others out")
    parser.add_argument("--detail", action="store_true", help="print every rank's figures")
    parser.add_argument("--stand-in", action="store_true", help="on chips that torch_npu takes for real")
    options = parser.parse_args()
    apart = [] if options.stand_in else held_out()
    every = stand_in(machine.environment()) if options.stand_in else [*known(), *apart]
    found = measure([case for case in every if case.name in (options.only or [case.name])])
    for one in found if options.detail else ():
        print(f"{one.error:+7.1%} {one.counted / 2**20:8.2f} MiB  {one.case:<50} {one.place:<14} {one.need.__dict__}")
    names = {case.name for case in apart}
    looked_at, others = ([one for one in found if (one.case in names) == out] for out in (False, True))
    figures = {
        **figures_of(looked_at, "memory"),
        "plans": len({one.case for one in looked_at}),
        "ranks": len(looked_at),
        **figures_of(others, "held_out"),
        **({"held_out_plans": len({one.case for one in others}), "held_out_ranks": len(others)} if others else {}),
        "over_limit_plans": len(over_limit(found)),
        **(_recompute_figures(found) if not options.stand_in and options.only is None else {}),
    }
    name = "memory_stand_in" if options.stand_in else "memory"
    print_report(name, figures, emulated=True, quiet=options.json)


if __name__ == "__main__":
    main()
