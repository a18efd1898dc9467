"""Small pools, links and models, by hand and by hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from backends.chip import ChipSpec
from balancer.cost.topology import LinkSpec, PoolSpec, Topology
from balancer.cost.workload import UnitWork, Workload
from balancer.plan.plan import PipelinePlan, Plan, StagePlan


def pool(name="a", count=4, speed=1.0, *, gib=80.0, hosts=1, tp=None, interconnect=1e15, precision="float32"):
    chip = ChipSpec(f"chip-{name}", "cpu", {precision: speed * 1e12}, int(gib * 2**30), 1e15, interconnect, 1.0, {})
    return PoolSpec(name, chip, count, count // hosts, chip.memory_bytes, tp, precision)


def topology(*pools, bytes_per_s=1e15, latency_s=0.0):
    pairs = [(a.name, b.name) for i, a in enumerate(pools) for b in pools[i + 1 :]]
    return Topology(tuple(pools), tuple(LinkSpec(pair, bytes_per_s, latency_s) for pair in pairs))


def unit(kind="attention", gflops=100.0, parameters=1_000_000, kept=1_000_000, boundary=1_000_000):
    """Four fifths of its products are with weights."""
    flops = gflops * 1e9
    return UnitWork(kind, flops, parameters, kept, boundary, tp_collectives=1, weight_flops=0.8 * flops)


def workload(units=8, batch=16, *, cuts=None, tied=(), **each):
    """A model of `units` equal units, or of the units given; every cut is legal unless `cuts` says which."""
    if isinstance(units, int):
        units = [unit(**each)] * units
    legal = frozenset(range(len(units)) if cuts is None else cuts)
    return Workload(tuple(units), 128, batch, legal, tuple(tied))


def halved(work):
    """The workload of a float32 job, whose units have half the bytes in other precisions."""
    half = tuple(
        replace(unit, activation_bytes=unit.activation_bytes // 2, boundary_bytes=unit.boundary_bytes // 2)
        for unit in work.units
    )
    return replace(work, by_precision={"float32": work.units, "bfloat16": half, "float16": half})


def plan(*pipelines, **fields):
    """plan((16, [("a", 1, (0, 4)), ("b", 2, (4, 8))])): a share and (pool, tp, *ranges) of each stage."""
    made = []
    for share, stages in pipelines:
        written = tuple(StagePlan(pool=name, tp=tp, units=ranges) for name, tp, *ranges in stages)
        made.append(PipelinePlan(share=share, stages=written))
    return Plan(pipelines=tuple(made), **fields)


SECONDS = st.floats(0.01, 1.0, allow_nan=False)


@st.composite
def pipelines(draw, most_stages=5, most_units=10, tp=1, interconnect=1e15):
    """(topology, workload, plan) of one pipeline with a pool for each stage, any speeds and links."""
    stages = draw(st.integers(1, most_stages))
    n = draw(st.integers(stages, most_units))
    bounds = [0, *sorted(draw(st.permutations(range(1, n)))[: stages - 1]), n]
    pools = [pool(f"p{s}", tp, draw(st.floats(0.2, 5.0)), interconnect=interconnect) for s in range(stages)]
    link = {
        "bytes_per_s": draw(st.sampled_from([1e6, 1e7, 1e9, 1e15])),
        "latency_s": draw(st.sampled_from([0.0, 0.05])),
    }
    units = [unit(f"k{u}", draw(st.floats(10.0, 300.0))) for u in range(n)]
    batch = draw(st.integers(1, 20))
    shape = [(f"p{s}", tp, (bounds[s], bounds[s + 1])) for s in range(stages)]
    return topology(*pools, **link), workload(units, batch), plan((batch, shape))
