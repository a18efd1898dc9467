"""What a plan says that its chips will hold against the tensors that they hold.

    python -m benchmarks.memory [--json] [--only NAME ...] [--detail]

Ranks of two emulated pools run two steps of each plan and count the bytes of the tensors that are alive
(`benchmarks/counted.py`). That is held against the bytes of tensors that `balancer/memory.py` predicts for the rank's
stage: without the allocator's slack and what a library takes for communicators, for these are no tensors. `memory_mape`
is the mean over all ranks of all plans of |predicted - counted| / counted, `memory_worst` the largest, signed: below 0
where less was predicted than there was. `over_limit_plans` are plans called legal under which a rank held more than its
chip offers, each chip being given what the plan predicts, slack included, and no byte
more. It says nothing of a real chip's allocator.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from balancer.completion import complete
from balancer.memory import stage_bytes
from balancer.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from benchmarks.report import print_report
from hetero.cluster.agent import LocalAgents
from hetero.cluster.fleet import Programs
from hetero.cluster.instructions import News
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.job import Job
from hetero.job.planning import legal_tp, topology, workload
from hetero.job.spec import fleet_links, run_spec

ROOT = Path(__file__).parents[1]
STEPS = 2
"""The second has the optimizer's moments from its beginning."""
NO_PACE = 1e-9
POOLS = {
    "n": {"family": "cuda", "chip": "A800-80G", "count": 4},
    "a": {"family": "ascend", "chip": "Ascend-910B2", "count": 2},
}
MODEL = {"layers": 4, "hidden": 128, "heads": 4, "kv_heads": 2, "ffn": 344, "vocab": 512}
UNITS = 2 * MODEL["layers"] + 2
LARGE_VOCAB = {"vocab": 4096}
Ranges = Sequence[tuple[int, int]]


def stage(pool: str, tp: int, *units: tuple[int, int]) -> StagePlan:
    return StagePlan(pool=pool, tp=tp, units=units)


def pipeline(share: int, *stages: StagePlan, micro_batch: int = 1) -> PipelinePlan:
    return PipelinePlan(share=share, micro_batch=micro_batch, stages=stages)


@dataclass(frozen=True)
class Case:
    """A job and a plan as a person would write it."""

    name: str
    pipelines: tuple[PipelinePlan, ...]
    precision: str = "float32"
    precisions: Mapping[str, str] = field(default_factory=dict)
    schedule: str = "1f1b"
    model: Mapping[str, Any] = field(default_factory=dict)
    codec: str = "none"
    bucket_mib: float = 1.0

    @property
    def job(self) -> Job:
        local = {"env": {"vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}, "emulate": {}}
        pools = {name: pool | local | {"precision": self.precisions.get(name)} for name, pool in POOLS.items()}
        batch = sum(one.share for one in self.pipelines)
        train = {"steps": STEPS, "global_batch": batch, "precision": self.precision, "replica_check_every": 0}
        return Job.model_validate(
            {
                "model": {"dimensions": {"family": "llama", **MODEL, **self.model}},
                "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 64},
                "train": train,
                "pools": pools,
                "bridge": {"codec": self.codec, "sync_bucket_mib": self.bucket_mib},
                "monitor": {"trace_every": 0},
            }
        )

    @property
    def plan(self) -> Plan:
        written = Plan(schedule=self.schedule, pipelines=self.pipelines)
        return complete(written, Problem(topology(self.job), workload(self.job), legal_tp=legal_tp(self.job)))


def cases() -> list[Case]:
    whole, first, last = (0, UNITS), (0, 5), (5, UNITS)
    one, two = pipeline(4, stage("n", 1, whole)), pipeline(4, stage("n", 2, whole))
    line = pipeline(8, stage("n", 1, first), stage("n", 1, last))
    bridge = pipeline(8, stage("n", 1, first), stage("a", 1, last))
    copies = (pipeline(4, stage("n", 1, whole)),) * 2
    across = (pipeline(4, stage("n", 1, whole)), pipeline(4, stage("a", 1, whole)))
    both = (pipeline(4, stage("n", 2, whole)),) * 2
    chunks = pipeline(4, stage("n", 1, (0, 3), (6, 8)), stage("n", 1, (3, 6), (8, UNITS)))
    lines = (pipeline(4, stage("n", 1, first), stage("n", 1, last)),) * 2
    mixed = (pipeline(6, stage("n", 2, first), stage("a", 1, last)), pipeline(2, stage("n", 1, whole)))
    three = (*copies, pipeline(2, stage("a", 2, whole)))
    bf16, fp16 = {"precision": "bfloat16"}, {"precision": "float16"}
    large, tied = {"model": LARGE_VOCAB}, {"model": {"tie_embeddings": True}}
    return [
        Case("one chip", (one,)),
        Case("one chip, bfloat16", (one,), **bf16),
        Case("one chip, large vocab", (one,), **large),
        Case("one chip, large vocab, bfloat16", (one,), **bf16, **large),
        Case("micro-batches of 4", (pipeline(8, stage("n", 1, whole), micro_batch=4),), **bf16),
        Case("tp 2", (two,)),
        Case(
            "tp 4, bfloat16, large vocab",
            (pipeline(4, stage("n", 4, whole)),),
            **bf16,
            model=LARGE_VOCAB | {"kv_heads": 4},
        ),
        Case("pp 2", (line,)),
        Case("pp 2, bfloat16", (line,), **bf16),
        Case("pp 2, gpipe", (line,), schedule="gpipe"),
        Case("pp 2, two chunks each", (chunks,)),
        Case("pp 2, tied", (line,), **tied),
        Case("dp 2", copies),
        Case("dp 2, bfloat16", copies, **bf16),
        Case("dp 2, small buckets, large vocab", copies, bucket_mib=0.25, **large),
        Case("dp 4, float16", copies * 2, **fp16),
        Case("tp 2, dp 2", both),
        Case("pp 2, dp 2, bfloat16", lines, **bf16),
        Case("pp over a bridge", (bridge,)),
        Case("pp over a bridge, bfloat16", (bridge,), **bf16),
        Case("pp over a bridge, int8", (bridge,), codec="int8"),
        Case("dp over a bridge", across),
        Case("dp over a bridge, float16", across, **fp16),
        Case("dp over a bridge, float16 beside float32", across, precisions={"a": "float16"}),
        Case("tp 2 to 1 over a bridge, and a copy", mixed),
        Case("tp 2 to 1 over a bridge, and a copy, bfloat16", mixed, **bf16),
        Case("two copies in one pool, tp 2 in the other", three, **bf16),
    ]


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
        self._told: list[News] = []
        self.session: Session

    def hear(self, news: News) -> None:
        if news.kind == "counted":
            self._told.append(news)

    def run(self, case: Case) -> list[Found]:
        self._epoch += 1
        self._told.clear()
        job, plan = case.job, case.plan.model_copy(update={"epoch": self._epoch})
        self.session.configure(run_spec(job, self.session.fleet, plan, self._text, NO_PACE).model_dump(mode="json"))
        self.session.run(STEPS, lambda *_: None)
        return [_found(case, plan, news) for news in self._told if news.step == STEPS]


def _found(case: Case, plan: Plan, news: News) -> Found:
    place = news.data["pipeline"], news.data["stage"]
    precision, bucket_bytes = case.job.precision_of(str(news.pool)), case.job.bridge.sync_bucket_bytes
    need = stage_bytes(workload(case.job), plan, *place, precision, None, bucket_bytes)
    return Found(case.name, f"{news.rank} of {place}", news.data["peak"], need)


def measure(chosen: Sequence[Case]) -> list[Found]:
    job = chosen[0].job
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(prepare(job.data, Path(folder)))
        fleet = replace(fleet_of(job.pools, fleet_links(job)), programs=Programs(rank="benchmarks.counted:main"))
        with Session.start(fleet, LocalAgents(), bench.hear) as bench.session:
            return [found for case in chosen for found in bench.run(case)]


def figures_of(found: Sequence[Found]) -> dict[str, float]:
    return {
        "memory_mape": mean(abs(one.error) for one in found),
        "memory_worst": max((one.error for one in found), key=abs),
        "plans": len({one.case for one in found}),
        "ranks": len(found),
        "over_limit_plans": len({one.case for one in found if one.counted > one.need.total}),
    }


def main() -> None:
    every = {case.name: case for case in cases()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", choices=list(every), default=list(every), help="leave the others out")
    parser.add_argument("--detail", action="store_true", help="print every rank's figures")
    options = parser.parse_args()
    found = measure([every[name] for name in options.only])
    for one in found if options.detail else ():
        print(f"{one.error:+7.1%} {one.counted / 2**20:8.2f} MiB  {one.case:<50} {one.place:<14} {one.need.__dict__}")
    print_report("memory", figures_of(found), emulated=True, quiet=options.json)


if __name__ == "__main__":
    main()
