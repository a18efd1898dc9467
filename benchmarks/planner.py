"""How long the balancer searches, and what its plan is worth: a 70B model on chips of three families.

    python -m benchmarks.planner [--json] [--chips 64 1024 8192] [--long SECONDS]

Nothing runs: chips are as their data sheets say. `search_s_N` is the time of a search over everything that a plan may
choose on N chips, of which there are as many A800, Ascend 910B2 and Kunlun P800 as hosts of eight allow;
`gap_N` by how much a faster plan may be hidden in what it has not looked through. At the first of the sizes,
`within_of_long_search` is how much longer a step takes than that of a search with ten times the effort, or one of so
many seconds, and gains are the steps of other plans over that of the one that is found: `gain_over_even` with as many
units on each stage and as many sequences on each pipeline, `gain_over_proportional` with both by the chips' speed,
`gain_over_uniform_tp` the best that is found where all pools have one tp.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, pairwise
from math import inf
from time import perf_counter

from backends.chip import load_chip
from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times, model_time
from balancer.cost.topology import LinkSpec, PoolSpec, Topology
from balancer.errors import BalancerError
from balancer.options import CHOICES, BalanceOptions
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.search.search import SearchResult, search
from balancer.simulate.simulate import simulate
from benchmarks.report import print_report
from hetero.models.options import ModelOptions
from hetero.models.registry import architecture

CHIPS = {"nvidia": "A800-80G", "ascend": "Ascend-910B2", "kunlun": "Kunlun-P800"}
HOST = 8
SEQ_LEN, PRECISION = 4096, "bfloat16"
BATCH = {64: 256, 1024: 1024}
"""Sequences of a step; of more chips `MOST`."""
MOST = 4096
LINK_BYTES_PER_S, LINK_LATENCY_S = 100e9 / 8, 50e-6
"""Between hosts of two families."""


def problem(chips: int) -> Problem:
    """Of so many chips in all."""
    hosts = chips // HOST
    counts = [HOST * (hosts // 3 + (number < hosts % 3)) for number in range(3)]
    pools = tuple(
        PoolSpec(name, chip, count, HOST, chip.usable_bytes, precision=PRECISION)
        for (name, chip), count in zip(((n, load_chip(c)) for n, c in CHIPS.items()), counts, strict=True)
    )
    ends = [(a, b) for i, a in enumerate(CHIPS) for b in list(CHIPS)[i + 1 :]]
    topology = Topology(pools, tuple(LinkSpec(pair, LINK_BYTES_PER_S, LINK_LATENCY_S) for pair in ends))
    model = architecture(ModelOptions(preset="llama-70b").resolve())
    work = model.workload(SEQ_LEN, BATCH.get(chips, MOST), PRECISION)
    return Problem(topology, work, datasheet_times(topology, work), model.legal_tp, BalanceOptions(choose=CHOICES))


def even(asked: Problem, found: Plan) -> Plan:
    """The same pipelines, with as much for each stage and pipeline."""
    return _divided(asked, found, lambda stage: 1.0)


def proportional(asked: Problem, found: Plan) -> Plan:
    """The same pipelines, with units and sequences by the speed of the chips."""
    return _divided(asked, found, lambda stage: 1 / model_time(asked.times, asked.workload, stage.pool, stage.tp))


def _divided(asked: Problem, found: Plan, speed: Callable[[StagePlan], float]) -> Plan:
    whole, batch = len(asked.workload.units), asked.workload.global_batch
    speeds = [sum(map(speed, pipeline.stages)) for pipeline in found.pipelines]
    size = max(pipeline.micro_batch for pipeline in found.pipelines)
    shares = _parts([each / len(found.pipelines[0].stages) for each in speeds], batch // size)
    pipelines = []
    for share, pipeline in zip(shares, found.pipelines, strict=True):
        bounds = accumulate(_parts([speed(stage) for stage in pipeline.stages], whole), initial=0)
        stages = (
            StagePlan(pool=stage.pool, tp=stage.tp, units=(units,), recompute="full", sequence_parallel=stage.tp > 1)
            for stage, units in zip(pipeline.stages, pairwise(bounds), strict=True)
        )
        pipelines.append(PipelinePlan(share=share * size, micro_batch=size, stages=tuple(stages)))
    return Plan(pipelines=tuple(pipelines))


def _parts(weights: Sequence[float], whole: int) -> list[int]:
    """By largest remainders, none of them nothing."""
    exact = [weight / sum(weights) * whole for weight in weights]
    parts = [max(1, int(each)) for each in exact]
    for i in sorted(range(len(parts)), key=lambda i: int(exact[i]) - exact[i])[: max(0, whole - sum(parts))]:
        parts[i] += 1
    return parts


def judged(asked: Problem, plan: Plan) -> float:
    """Seconds of a step, each stage with less of what saves memory as long as that fits."""
    best = inf
    for recompute in ("none", "selective", "full"):
        for optimizer in ("chip", "host"):
            pipelines = (
                pipeline.model_copy(update={"stages": tuple(
                    stage.model_copy(update={"recompute": recompute, "optimizer": optimizer})
                    for stage in pipeline.stages)})
                for pipeline in plan.pipelines
            )  # fmt: skip
            with suppress(BalancerError):
                whole = complete(plan.model_copy(update={"pipelines": tuple(pipelines)}), asked)
                best = min(best, simulate(whole, asked).step_s)
    return best


def uniform_tp(asked: Problem) -> Iterator[float]:
    """The best steps that are found with one tp for all."""
    for tp in (1, 2, 4, 8):
        pools = tuple(replace(pool, tp=tp) for pool in asked.topology.pools)
        with suppress(BalancerError):
            yield search(replace(asked, topology=replace(asked.topology, pools=pools))).prediction.step_s


def told(found: SearchResult, chips: int, seconds: float) -> None:
    sizes, sure = found.sizes, found.certificate
    print(f"{chips} chips: {found.prediction.step_s:.3f} s a step, found in {seconds:.2f} s; gap {sure.gap:.1%}")
    print(f"  {sizes.layouts:,} layouts, {sizes.pruned:,} pruned, {sizes.ways:,} ways to join and order them")
    print(f"  {sizes.priced:,} cut, {sizes.enumerated:,} listed, {sizes.simulated:,} simulated")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="only the last line")
    parser.add_argument("--chips", type=int, nargs="+", default=[64, 1024, 8192])
    parser.add_argument("--long", type=float, help="seconds of the long search, instead of ten times the effort")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for chips in options.chips:
        asked, began = problem(chips), perf_counter()
        found = search(asked)
        figures[f"search_s_{chips}"] = perf_counter() - began
        figures[f"gap_{chips}"] = found.certificate.gap
        if not options.json:
            told(found, chips, figures[f"search_s_{chips}"])
        if chips == options.chips[0]:
            figures |= worth(asked, found, options.long)
    print_report("planner", figures, emulated=False, quiet=options.json)


def worth(asked: Problem, found: SearchResult, seconds: float | None) -> dict[str, float]:
    step_s = found.prediction.step_s
    effort = 1000.0 if seconds else 10.0
    return {
        "within_of_long_search": step_s / search(asked, effort, seconds).prediction.step_s - 1,
        "gain_over_even": judged(asked, even(asked, found.plan)) / step_s,
        "gain_over_proportional": judged(asked, proportional(asked, found.plan)) / step_s,
        "gain_over_uniform_tp": min(uniform_tp(asked), default=inf) / step_s,
    }


if __name__ == "__main__":
    main()
