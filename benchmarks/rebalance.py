"""A pool that slows by half and recovers, in a run that is looked after: how soon the plan follows, and at what cost.

    python -m benchmarks.rebalance [--json] [--steps 90]

Three emulated pools of one chip, of which one takes 1.5 times as long from step 20 to step 59. Three runs of one job:
looked after while that happens; kept, with chips that do not change; kept, with that pool slow from the beginning. The
last two are planned by what was measured of their chips, so their speeds are the optimum before and after, and the
second's losses are those of a run that nothing happened to.

- `slow_of_optimum`, `recovered_of_optimum`: tokens per second from the tenth step after a change on, the median, over
  the optimum; `kept_of_optimum`: in the first steps after it, under the plan before;
- `slow_delay`, `recovered_delay`: steps from a change until one reaches 95% of the optimum, those after it included;
- `loss_deviation`: of any step from the undisturbed run, as a part of it;
- `moves`, `moved_MB`, `pause_s`: how often the plan changed, what moved in all, and how long the run stood at most;
- `noisy_moves`: plans changed in 500 steps whose stages stray by up to 5%, simulated.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from balancer.rebalance.policy import decide
from balancer.rebalance.rebalancer import Rebalancer
from balancer.search.search import search
from benchmarks.report import print_report
from benchmarks.usage import other_work
from hetero.job.job import Job
from hetero.job.planning.problem import problem
from hetero.monitoring.journal import EVENTS, METRICS, read
from hetero.run import train

SLOW, AGAIN, FOLLOWED = 20, 60, 10
SLOWED, RATIO, ENOUGH = "ascend", 1.5, 0.95
NOISE, NOISY_STEPS = 0.05, 500
POOLS = {"nvidia": ("cuda", "A800-80G"), "ascend": ("ascend", "Ascend-910B2"), "kunlun": ("kunlun", "Kunlun-P800")}


@dataclass(frozen=True)
class Ran:
    lines: Sequence[dict[str, Any]]
    rebalanced: Sequence[dict[str, Any]]

    def tokens_per_s(self, begin: int, end: int | None = None) -> float:
        return median(line["tokens_per_s"] for line in self.lines[begin:end])

    def delay(self, change: int, end: int, optimum: float) -> int:
        """Steps until one is fast enough, as all up to `end` are in the median."""
        fast = (step for step in range(change, end) if self.tokens_per_s(step, step + 3) >= ENOUGH * optimum)
        return next(fast, end) - change


def job_of(steps: int, live: str, **emulate: Any) -> Job:
    sizes = {"layers": 4, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 172, "vocab": 257}
    pools = {
        name: {"family": family, "chip": chip, "count": 1, "emulate": {"jitter": 0.01, "seed": seed}}
        for seed, (name, (family, chip)) in enumerate(POOLS.items())
    }
    pools[SLOWED]["emulate"] = {"jitter": 0.01, "seed": 7, **emulate}
    pairs = (["nvidia", "ascend"], ["nvidia", "kunlun"], ["ascend", "kunlun"])
    return Job.model_validate(
        {
            "model": {"dimensions": {"family": "llama", **sizes}},
            "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 128},
            "train": {"steps": steps, "global_batch": 48, "precision": "float32", "optimizer": {"lr": 1e-3}},
            "pools": pools,
            "bridge": {"links": [{"between": pair, "gbit_per_s": 1600, "rtt_ms": 0.0002} for pair in pairs]},
            "balance": {"live": live},
            "time_scale": 16000,
        }
    )


def run(job: Job) -> Ran:
    with tempfile.TemporaryDirectory(prefix="hetero-") as folder:
        train(job, Path(folder) / "run")
        events = read(Path(folder) / "run" / EVENTS)
        changes = [event["data"] for event in events if event["kind"] == "rebalanced"]
        return Ran(list(read(Path(folder) / "run" / METRICS)), changes)


def noisy_moves(job: Job) -> int:
    """Of a plan that is the best one already."""
    asked, stray = problem(job), random.Random(0)
    found = search(asked)
    rebalancer, moves = Rebalancer(asked, NOISY_STEPS), 0
    rebalancer.begin(found.plan, 0)
    for step in range(NOISY_STEPS):
        stages_s = {place: s * stray.uniform(1 - NOISE, 1 + NOISE) for place, s in found.prediction.busy_s.items()}
        situation = rebalancer.hear(step, found.prediction.step_s, stages_s)
        moves += situation is not None and decide(situation).rung != "keep"
    return moves


def compare(steps: int) -> tuple[dict[str, float], str | None]:
    """The figures, and why they are void if they are."""
    events = [{"at_step": SLOW, "speed": 1 / RATIO}, {"at_step": AGAIN, "speed": 1.0}]
    followed = run(job_of(steps, "auto", events=events))
    undisturbed = run(job_of(steps, "off"))
    slow = run(job_of(SLOW, "off", speed=1 / RATIO))
    best, best_slow = undisturbed.tokens_per_s(1), slow.tokens_per_s(1)
    pairs = zip(followed.lines, undisturbed.lines, strict=True)
    figures = {
        "slow_of_optimum": followed.tokens_per_s(SLOW + FOLLOWED, AGAIN) / best_slow,
        "recovered_of_optimum": followed.tokens_per_s(AGAIN + FOLLOWED) / best,
        "kept_of_optimum": followed.tokens_per_s(SLOW, SLOW + 3) / best_slow,
        "slow_delay": followed.delay(SLOW, AGAIN, best_slow),
        "recovered_delay": followed.delay(AGAIN, steps, best),
        "loss_deviation": max(abs(one["loss"] / other["loss"] - 1) for one, other in pairs),
        "moves": len(followed.rebalanced),
        "moved_MB": sum(told["sent_bytes"] for told in followed.rebalanced) / 1e6,
        "pause_s": max((told["pause_s"] for told in followed.rebalanced), default=0.0),
        "noisy_moves": noisy_moves(job_of(steps, "auto")),
    }
    overruns = sum(line["overrun"] for ran in (followed, undisturbed, slow) for line in ran.lines)
    return figures, f"{overruns} steps overran their modelled time" if overruns else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--steps", type=int, default=90)
    options = parser.parse_args()
    busy = other_work()
    figures, void = compare(options.steps)
    print_report("rebalance", figures, emulated=True, void=busy or void, quiet=options.json)


if __name__ == "__main__":
    main()
