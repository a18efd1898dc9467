"""What predictions are worth: 20 unlike plans on chips and links whose figures nobody knows, predicted and then run.

    python -m benchmarks.predicted [--json] [--seed N] [--only NAME ...] [--steps N] [--time-scale X]

Three emulated pools. Each one's speed, jitter and memory, and each link's rate and delay, are drawn from the seed and
told to the ranks and endpoints alone. The planner profiles them, as `hetero profile` does, completes each plan and
predicts its step. `mean_error` and `max_error` are of the step that it tells in the mean, as actions differ, against
the mean of the measured ones, as a fraction; `rank_correlation` is Spearman's over the plans; `in_band` the part of the
plans whose measured steps lie in the band that was told for 9 of 10.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times, model_time
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.simulate.band import Band, band
from balancer.simulate.simulate import simulate
from benchmarks.ideal import HostReports
from benchmarks.report import print_report
from bridge.words.endpoint import LinkProbed, ProbeLink
from hetero.cluster.fleet import host_id
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.job.job import Job
from hetero.job.planning.measuring import Measurements, measure, profile
from hetero.job.planning.problem import problem, topology, workload
from hetero.job.run.spec import fleet_links, run_spec

ROOT = Path(__file__).parents[1]
LAYERS, BATCH, STEPS = 6, 8, 3
UNITS = 2 * LAYERS + 2
POOLS = {
    "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 4},
    "ascend": {"family": "ascend", "chip": "Ascend-910B2", "count": 4},
    "kunlun": {"family": "kunlun", "chip": "Kunlun-P800", "count": 2},
}
SLOWER = 4.0
"""Times slower than `time_scale: auto`: what ranks do between actions takes real time, and is to count for little."""
PROBE_S, PROBES = 1.0, 3
"""A link is looked at for as long at least, and so often; the fastest counts, for whatever else the machine does can
only slow it."""


def job(
    hidden: Mapping[str, Any] | None = None,
    links: Sequence[Mapping[str, Any]] = (),
    time_scale: float | Literal["auto"] = "auto",
) -> Job:
    """A small model, whose arithmetic is done long before its time. What is `hidden` is by pool."""
    env = {"vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    open_ = {"precision": "bfloat16", "host_gb_per_s": 1000.0}
    emulate = {name: open_ | (hidden or {}).get(name, {}) for name in POOLS}
    small = {"family": "llama", "layers": LAYERS, "hidden": 64, "heads": 4, "kv_heads": 4, "ffn": 172, "vocab": 257}
    return Job.model_validate(
        {
            "model": {"dimensions": small},
            "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 64},
            "train": {"steps": 10_000, "global_batch": BATCH},
            "pools": {name: pool | {"emulate": emulate[name], "env": env} for name, pool in POOLS.items()},
            "bridge": {"links": list(links)},
            "monitor": {"trace_every": 0},
            "time_scale": time_scale,
        }
    )


def drawn(seed: int) -> Job:
    """The same job as the chips and links have it."""
    chance, known = random.Random(seed), job()
    hidden = {
        name: {
            "speed": chance.uniform(0.6, 1.2),
            "jitter": chance.uniform(0.0, 0.04),
            "seed": chance.randrange(1 << 30),
            "memory_gib": chance.uniform(20.0, 60.0),
        }
        for name in POOLS
    }
    work = workload(known)
    stage_s = model_time(datasheet_times(topology(known), work), work, "nvidia", 1) / 3
    fastest = 8e-9 * max(unit.boundary_bytes for unit in work.units) / stage_s
    links = [
        {
            "between": list(ends),
            "gbit_per_s": fastest / chance.uniform(0.1, 0.4),
            "rtt_ms": 1e3 * stage_s * chance.uniform(0.02, 0.1),
        }
        for ends in combinations(POOLS, 2)
    ]
    return job(hidden, links)


def stage(pool: str, units: Any, tp: int = 1, **strategies: Any) -> StagePlan:
    return StagePlan(pool=pool, tp=tp, units=units, **strategies)


def one(*stages: StagePlan, share: int = BATCH, micro_batch: int = 1) -> PipelinePlan:
    return PipelinePlan(share=share, micro_batch=micro_batch, stages=stages)


def plans() -> dict[str, Plan]:
    """As a person would write them, good ones and bad ones."""
    n, a, k = "nvidia", "ascend", "kunlun"
    three = stage(n, (0, 5)), stage(a, (5, 10)), stage(k, (10, UNITS))
    chunks = stage(n, ((0, 3), (7, 10))), stage(a, ((3, 7), (10, UNITS)))
    v_shape = stage(n, ((0, 3), (10, UNITS))), stage(a, ((3, 6), (6, 10)))
    pair = one(stage(n, (0, 7)), stage(a, (7, UNITS)), share=5), one(stage(k, (0, UNITS)), share=3)

    def recomputed(how: Any) -> PipelinePlan:
        return one(stage(n, (0, 7), recompute=how), stage(a, (7, UNITS), recompute=how))

    def plan(*pipelines: PipelinePlan, schedule: str = "1f1b") -> Plan:
        return Plan(schedule=schedule, pipelines=pipelines)

    return {
        "1f1b": plan(one(*three)),
        "gpipe": plan(one(*three), schedule="gpipe"),
        "zero-bubble": plan(one(*three), schedule="zero-bubble"),
        "v": plan(one(*v_shape), schedule="v"),
        "interleaved": plan(one(*chunks), schedule="interleaved"),
        "uneven pipelines": plan(*pair),
        "zero-bubble pipelines": plan(*pair, schedule="zero-bubble"),
        "tp2": plan(one(stage(n, (0, 6), 2), stage(a, (6, UNITS), 2))),
        "tp4 and tp2": plan(one(stage(n, (0, 9), 4), stage(k, (9, UNITS), 2))),
        "four alone": plan(*[one(stage(n, (0, UNITS)), share=2)] * 4),
        "deep": plan(one(*(stage(a, ends) for ends in pairwise((0, 4, 7, 10, UNITS))))),
        "selective": plan(recomputed("selective")),
        "full": plan(recomputed("full")),
        "some recomputed": plan(recomputed({"full": 2, "selective": 3})),
        "sequence parallel": plan(one(stage(n, (0, 7), 2, sequence_parallel=True), stage(a, (7, UNITS), 2))),
        "sliced": plan(one(stage(n, (0, 7), 2, tp_slices=2), stage(k, (7, UNITS), 2))),
        "host": plan(one(stage(n, (0, 7), optimizer="host"), stage(a, (7, UNITS), optimizer="host"))),
        "micro-batch 2": plan(one(*three, micro_batch=2)),
        "wide interleaved": plan(
            one(*(part.model_copy(update={"tp": 2, "recompute": "selective"}) for part in chunks)),
            schedule="interleaved",
        ),
        "all": plan(
            one(stage(n, (0, 7), 2), stage(a, (7, UNITS), 2), share=4),
            one(stage(k, (0, 5)), stage(a, (5, UNITS), 2), share=2),
            one(stage(n, (0, 8)), stage(n, (8, UNITS)), share=2),
        ),
    }


@dataclass(frozen=True)
class Compared:
    """Seconds of a step: `told` before, and then `measured` in the mean."""

    told: Band
    measured: float
    overruns: int

    @property
    def predicted(self) -> float:
        return self.told.mean_s

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def in_band(self) -> bool:
        return self.told.low_s <= self.measured <= self.told.high_s


class Bench:
    """Standing ranks, which are profiled, and then run one plan after another."""

    def __init__(self, truth: Job, session: Session, text: Prepared, scale: float | None) -> None:
        self._session, self._text, self._epoch = session, text, -1
        scale = scale or SLOWER * measure(job(), session, None).time_scale
        profile(job(time_scale=scale), session, lambda note: None)
        self._measured: Measurements = measure(job(time_scale=scale), session, None)
        session.relink(fleet_links(truth, scale))
        self._known = job(links=[self._link(*ends) for ends in combinations(POOLS, 2)], time_scale=scale)

    @property
    def time_scale(self) -> float:
        return self._measured.time_scale

    def compare(self, written: Plan, steps: int) -> Compared:
        measured = self._measured
        usable = self._session.usable_bytes
        asked = problem(self._known, measured.times, usable_bytes=usable, profile=measured.profile)
        plan = complete(written, asked)
        told = band(simulate(plan, asked, measured.time_scale), measured.profile.noise(), steps)
        assert told is not None
        seconds, overruns = self._run(plan, steps)
        return Compared(told, seconds, overruns)

    def _run(self, plan: Plan, steps: int) -> tuple[float, int]:
        """The mean of some steps after one that warms up: one begins while the one before still ends."""
        self._epoch += 1
        plan, ends, overruns = plan.model_copy(update={"epoch": self._epoch}), list[float](), 0
        scale = self._measured.time_scale
        self._session.configure(run_spec(self._known, self._session.fleet, plan, self._text, scale))

        def record(_: int, hosts: HostReports) -> None:
            nonlocal overruns
            ends.append(max(host.end for host in hosts))
            overruns += any(host.overrun for host in hosts)

        self._session.run(steps + 1, record)
        return mean(after - before for before, after in pairwise(ends)), overruns

    def _link(self, a: str, b: str) -> dict[str, Any]:
        """As a person would write down what was measured, of the slower direction."""
        found, scale = (self._look(a, b), self._look(b, a)), self._measured.time_scale
        rate, rtt_s = min(one.bytes_per_s for one in found), min(one.rtt_s or 0.0 for one in found)
        return {"between": [a, b], "gbit_per_s": 8e-9 * rate * scale, "rtt_ms": 1e3 * rtt_s / scale}

    def _look(self, source: str, target: str) -> LinkProbed:
        size, took = 1 << 14, 0.0
        while took < PROBE_S:
            size *= 2
            took = size / self._probe(source, target, size).bytes_per_s
        return max((self._probe(source, target, size) for _ in range(PROBES)), key=lambda one: one.bytes_per_s)

    def _probe(self, source: str, target: str, size: int) -> LinkProbed:
        (found,) = self._session.ask(ProbeLink(host_id(target, 0), size), [host_id(source, 0)])
        return found


def figures(found: Mapping[str, Compared]) -> dict[str, float]:
    errors = [abs(each.error) for each in found.values()]
    seconds = np.array([(each.predicted, each.measured) for each in found.values()])
    predicted, measured = (np.argsort(np.argsort(column)) for column in seconds.T)
    return {
        "mean_error": mean(errors),
        "max_error": max(errors),
        "rank_correlation": float(np.corrcoef(predicted, measured)[0, 1]) if len(errors) > 1 else 1.0,
        "in_band": mean(each.in_band for each in found.values()),
        "plans": len(errors),
    }


def compare(
    seed: int, names: Sequence[str], steps: int, scale: float | None, tell: Any
) -> tuple[dict[str, Compared], dict[str, float]]:
    """By plan; and how it was found."""
    truth = drawn(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        with Session.start(fleet_of(truth.pools, fleet_links(truth)), LocalAgents()) as session:
            began = time.monotonic()
            bench = Bench(truth, session, prepare(truth.data, Path(folder)), scale)
            profiled_s, found = time.monotonic() - began, dict[str, Compared]()
            for name in names:
                found[name] = bench.compare(plans()[name], steps)
                tell(name, found[name])
    return found, {"profiled_s": profiled_s, "seed": seed, "time_scale": bench.time_scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16))
    parser.add_argument("--only", nargs="+", default=list(plans()), choices=list(plans()), metavar="NAME")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--time-scale", type=float, help=f"{SLOWER:g} times what `auto` would be, if it is left out")
    options = parser.parse_args()

    def tell(name: str, each: Compared) -> None:
        if not options.json:
            told = f"predicted {each.predicted:.3f} ({each.told.low_s:.3f} to {each.told.high_s:.3f})"
            print(f"  {name:<22} {told} measured {each.measured:.3f} {each.error:+.2%}", flush=True)

    found, facts = compare(options.seed, options.only, options.steps, options.time_scale, tell)
    late = {name: each.overruns for name, each in found.items() if each.overruns}
    void = f"steps overran their modelled time: {late}" if late else None
    print_report("predicted", figures(found) | facts, emulated=True, void=void, quiet=options.json)


if __name__ == "__main__":
    main()
