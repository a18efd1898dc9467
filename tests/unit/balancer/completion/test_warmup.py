"""Warm-ups that hide links: deep enough by simulation, and no deeper."""

from __future__ import annotations

import pytest
from hypothesis import given

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.problem import Problem
from balancer.simulate.simulate import Scenario, run, simulate
from tests.unit.balancer.cases import pipelines, plan, pool, topology, workload

TWO = [("a", 1, (0, 2)), ("b", 1, (2, 4))]


def planned(chips, work, written, hide=True):
    problem = Problem(chips, work, datasheet_times(chips, work))
    completed = complete(written, problem if hide else Problem(chips, work))
    return completed.pipelines[0].warmups(), run(Scenario(completed, problem))


def slow_link(hop, batch=64, gib=80.0, kept=1_000_000):
    """Two stages that take a second each for a micro-batch, and `hop` seconds between them."""
    chips = topology(pool("a", 1, gib=gib), pool("b", 1, gib=gib), bytes_per_s=1e6)
    return chips, workload(4, batch=batch, gflops=1000 / 6, boundary=round(hop * 1e6), kept=kept)


@pytest.mark.parametrize(("hop", "most"), [(0.3, 0.01), (0.6, 0.02), (0.9, 0.03)])
def test_a_busy_link_costs_its_filling_and_emptying_alone(hop, most):
    (_, free), (depths, slow) = (planned(*slow_link(h), plan((64, TWO))) for h in (0.0, hop))
    assert slow.step_s / free.step_s - 1 < most
    usual, exposed = planned(*slow_link(hop), plan((64, TWO)), hide=False)
    assert usual == (2, 1) < depths
    assert exposed.step_s / free.step_s - 1 > 0.9 * hop


@given(case=pipelines())
def test_one_micro_batch_less_would_expose_more(case):
    chips, work, written = case
    depths, hidden = planned(chips, work, written)
    usual, exposed = planned(chips, work, written, hide=False)
    assert hidden.step_s <= exposed.step_s * 1.001
    assert all(n >= least for n, least in zip(depths, usual, strict=True))
    assert list(depths) == sorted(depths, reverse=True)
    if depths != usual and depths[0] < work.global_batch:
        less = [max(n - 1, least) for n, least in zip(depths, usual, strict=True)]
        stages = [s.model_copy(update={"warmup": n}) for s, n in zip(written.pipelines[0].stages, less, strict=True)]
        shallower = written.pipelines[0].model_copy(update={"stages": tuple(stages)})
        completed = complete(written.model_copy(update={"pipelines": (shallower,)}), Problem(chips, work))
        assert simulate(completed, Problem(chips, work, datasheet_times(chips, work))).step_s > hidden.step_s


def test_memory_bounds_the_depth():
    """A stage keeps 2 units x 1 GB for each micro-batch in flight."""
    room, _ = planned(*slow_link(0.9, kept=10**9), plan((64, TWO)))
    tight, _ = planned(*slow_link(0.9, kept=10**9, gib=6.0), plan((64, TWO)))
    assert (room, tight) == ((4, 1), (3, 1))


def test_depths_by_hand_and_idle_links_are_left_alone():
    assert planned(*slow_link(0.001), plan((64, TWO)))[0] == (2, 1)
    chips, work = slow_link(0.9)
    written = plan((64, TWO))
    first, second = written.pipelines[0].stages
    by_hand = written.pipelines[0].model_copy(update={"stages": (first.model_copy(update={"warmup": 2}), second)})
    assert planned(chips, work, written.model_copy(update={"pipelines": (by_hand,)}))[0] == (2, 1)
    assert planned(chips, work, plan((64, TWO), schedule="gpipe"))[0] == (2, 1)


def test_pipelines_that_share_a_wire_hide_each_other_s_messages():
    chips = topology(pool("a", 2), pool("b", 2), bytes_per_s=1e6)
    work = workload(4, batch=64, gflops=1000 / 6, boundary=450_000)
    timed, untimed = Problem(chips, work, datasheet_times(chips, work)), Problem(chips, work)
    two = plan((32, TWO), (32, TWO))
    free, hidden, usual = (
        run(Scenario(complete(two, known), timed, free_links=free))
        for known, free in ((timed, True), (timed, False), (untimed, False))
    )
    assert hidden.compute_s / free.compute_s - 1 < 0.06
    assert usual.compute_s / free.compute_s - 1 > 0.3


def test_chunks_apart_on_one_stage_are_bounded_alike():
    chips, work = slow_link(0.5, batch=16)
    v = plan((16, [("a", 1, (0, 1), (3, 4)), ("b", 1, (1, 3))]))
    (_, usual), (_, hidden) = planned(chips, work, v, hide=False), planned(chips, work, v)
    assert hidden.step_s <= usual.step_s
