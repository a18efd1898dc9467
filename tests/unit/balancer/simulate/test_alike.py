"""Of pipelines that are alike one is simulated, and what it tells is what all of them do."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.sync_traffic import shared_state
from balancer.cost.times import datasheet_times
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.simulate.alike import Alike
from balancer.simulate.computation import TimedAction
from balancer.simulate.simulate import Prediction, Scenario, run, run_all
from tests.examples import out_of_100
from tests.unit.balancer.cases import pool, topology, unit, workload

UNITS = 4
ODD = sqrt(2), sqrt(3), sqrt(5), sqrt(7)
SHAPES = (
    (("a", (0, 4)),),
    (("b", (0, 4)),),
    (("a", (0, 2)), ("b", (2, 4))),
    (("b", (0, 1)), ("a", (1, 4))),
    (("a", (0, 1)), ("a", (1, 2)), ("b", (2, 4))),
    (("a", (0, 1), (2, 3)), ("b", (1, 2), (3, 4))),
)
"""Stages, each with its pool and ranges."""


@st.composite
def scenarios(draw) -> Scenario:
    """Several kinds of pipelines, some of them equal, on two pools of several hosts. No two units take times of a round
    ratio: which of two messages of unlike pipelines is first that come to a link at the same time, is rounding."""
    network, hosts = draw(st.sampled_from([float("inf"), 2e6, 1e7])), draw(st.sampled_from([6, 12, 24]))
    speeds = st.sampled_from([1.0, 0.5, 0.3])
    pools = (
        replace(pool(name, 48, draw(speeds), hosts=hosts, interconnect=1e9), network_bytes_per_s=network)
        for name in "ab"
    )
    link = {
        "bytes_per_s": draw(st.sampled_from([1e6, 1e7, 1e12])),
        "latency_s": draw(st.sampled_from([0, 0.05])),
    }
    chips = replace(topology(*pools, **link), bucket_bytes=draw(st.sampled_from([1, 5_000_000, 1 << 30])))
    units = [
        unit(f"k{u}", odd * draw(st.floats(20.0, 300.0)), parameters=1_000_000 * draw(st.integers(1, 3)))
        for u, odd in enumerate(ODD)
    ]
    one = st.tuples(st.sampled_from(SHAPES), st.integers(1, 5), st.integers(1, 6))
    kinds = draw(st.lists(one, min_size=1, max_size=3))
    optimizers = {"a": draw(st.sampled_from(["chip", "host"])), "b": "chip"}
    pipelines = tuple(
        PipelinePlan(
            share=share,
            replicas=replicas,
            stages=tuple(StagePlan(pool=name, units=ranges, optimizer=optimizers[name]) for name, *ranges in shape),
        )
        for shape, share, replicas in kinds
    )
    work = workload(units, sum(share * replicas for _, share, replicas in kinds))
    work = replace(work, tied=draw(st.sampled_from([(), ((0, UNITS - 1),)])))
    written = Plan(pipelines=pipelines, schedule=draw(st.sampled_from(["1f1b", "gpipe"])))
    asked = Problem(chips, work, datasheet_times(chips, work))
    return Scenario(complete(written, Problem(chips, work)), asked, free_links=draw(st.booleans()))


def same(found: Prediction, expected: Prediction) -> None:
    for figure in ("step_s", "compute_s", "link_s"):
        assert getattr(found, figure) == pytest.approx(getattr(expected, figure), rel=1e-9), figure
    assert dict(found.busy_s) == pytest.approx(dict(expected.busy_s), rel=1e-9)
    for place, spans in expected.spans.items():
        assert [action for action, _, _ in found.spans[place]] == [action for action, _, _ in spans]
        assert ends_of(found.spans[place]) == pytest.approx(ends_of(spans))


def ends_of(spans: list[TimedAction]) -> list[float]:
    return [when for _, *ends in spans for when in ends]


@given(scenario=scenarios())
@out_of_100(40)
def test_equal_pipelines_once_is_all_of_them(scenario: Scenario) -> None:
    same(run(scenario), run_all(scenario))


def many(replicas: int, tp: int = 8, network: float = float("inf")) -> Scenario:
    """Two pools of hosts of eight chips, and as many pipelines over both as told."""
    pools = [replace(pool(name, 8 * replicas, hosts=replicas), network_bytes_per_s=network) for name in "ab"]
    chips, work = topology(*pools, bytes_per_s=1e6), workload(8, batch=4 * replicas * 8 // tp, parameters=1000)
    stages = StagePlan(pool="a", tp=tp, units=((0, 4),)), StagePlan(pool="b", tp=tp, units=((4, 8),))
    written = Plan(pipelines=(PipelinePlan(share=4, replicas=replicas * 8 // tp, stages=stages),))
    asked = Problem(chips, work, datasheet_times(chips, work))
    return Scenario(complete(written, Problem(chips, work)), asked)


@pytest.mark.parametrize(("tp", "neighbours"), [(8, 1), (4, 2), (2, 4)])
def test_pipelines_of_one_pair_of_hosts_are_neighbours_and_all_such_are_alike(tp: int, neighbours: int) -> None:
    scenario = many(4, tp)
    alike = Alike(scenario)
    assert {len(one) for one in alike.neighbourhoods} == {neighbours}
    assert alike.computing == (tuple(range(neighbours)),)
    assert len(Alike(replace(scenario, free_links=True)).computing) == 1


def test_all_copies_but_owners_and_hubs_are_one() -> None:
    scenario = many(12)
    alike = Alike(scenario)
    units = len(scenario.workload.units)
    told = set(alike.steps_as(shared_state(scenario.plan, scenario.workload)).values())
    assert len(told) == units // 2 + 1, "each owner owns a unit of either stage"
    same(run(scenario), run_all(scenario))


def test_links_of_one_host_share_its_network() -> None:
    """A host of a sends to two hosts of b at once, 4 MB each: over two links of 1 MB/s, or over one network of it."""

    def begins(network: float) -> list[float]:
        pools = replace(pool("a", 2), network_bytes_per_s=network), pool("b", 2, hosts=2)
        chips, work = topology(*pools, bytes_per_s=1e6), workload(2, batch=2, gflops=1000, boundary=4_000_000)
        stages = StagePlan(pool="a", units=((0, 1),)), StagePlan(pool="b", units=((1, 2),))
        written = Plan(pipelines=(PipelinePlan(share=1, replicas=2, stages=stages),))
        completed = complete(written, Problem(chips, work))
        found = run(Scenario(completed, Problem(chips, work, datasheet_times(chips, work))))
        return [found.spans[p, 1][0][1] for p in (0, 1)]

    assert begins(float("inf")) == pytest.approx([5, 5])
    assert begins(1e6) == pytest.approx([5, 9])


def test_a_network_as_fast_as_two_links_holds_up_neither() -> None:
    assert run(many(4, 4, network=2e6)).compute_s == pytest.approx(run(many(4, 4)).compute_s)
