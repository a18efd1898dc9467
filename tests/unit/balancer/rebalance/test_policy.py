"""A pure policy over runs in simulated time: it sees changes soon, noise never, and costs no more than it moved."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.rebalance.candidates import recut, reshared
from balancer.rebalance.decision import Decision, Situation
from balancer.rebalance.policy import LEAST_GAIN, decide
from balancer.rebalance.rebalancer import Rebalancer
from balancer.search.search import search
from balancer.simulate.simulate import simulate
from tests.examples import out_of_100
from tests.unit.balancer.cases import plan, pool, topology, workload
from tests.unit.balancer.rebalance.simulated_run import SimulatedRun, moved_at, slow_between, slower

SLOW, AGAIN, STEPS = 20, 60, 100
SEEN_WITHIN = 10


def problem(*speeds: float, units: int = 8, **each: int) -> Problem:
    """One pool of two chips for each speed."""
    pools = [pool(f"p{i}", 2, speed, tp=2) for i, speed in enumerate(speeds)]
    chips, work = topology(*pools, bytes_per_s=1e10, latency_s=1e-4), workload(units, 32, **each)
    return Problem(chips, work, datasheet_times(chips, work))


TWO = problem(1.0, 0.7)
CHAIN = plan((32, [("p0", 2, (0, 5)), ("p1", 2, (5, 8))]))
SHARED = plan((19, [("p0", 2, (0, 8))]), (13, [("p1", 2, (0, 8))]))


@pytest.mark.slow
@out_of_100(12)
@given(
    ratio=st.floats(1.15, 3.0),
    speeds=st.lists(st.floats(0.5, 2.0), min_size=2, max_size=3),
    noise=st.sampled_from([0.0, 0.01, 0.05]),
    seed=st.integers(0, 9),
)
def test_follows_a_pool_that_slows_and_recovers(ratio: float, speeds: list[float], noise: float, seed: int) -> None:
    asked = problem(*speeds)
    slowing = slow_between("p0", ratio, SLOW, AGAIN)
    run = SimulatedRun(asked, search(asked).plan, STEPS, slowing, noise, random=Random(seed)).run()
    corrections = noise >= LEAST_GAIN  # what noise has told wrong at first is worth a second move
    assert len(run.moves) <= 2 * (1 + corrections), "it moves once for a change"
    for change, best in ((SLOW, search(slower(asked, {"p0": ratio}))), (AGAIN, search(asked))):
        least_s = best.prediction.step_s
        if run.steps_s[change] > 1.05 * least_s:
            assert run.steps_s[change + SEEN_WITHIN] <= 1.05 * least_s
    assert run.run_s <= run.static_s + run.paused_s


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("obeyed", [CHAIN, SHARED], ids=["one pipeline", "two"])
def test_noise_is_no_change(obeyed, gaussian: bool) -> None:
    """Whether or not the plan is the best one."""
    run = SimulatedRun(TWO, complete(obeyed, TWO), 500, lambda step: {}, 0.05, gaussian, random=Random(3)).run()
    assert moved_at(run) == []


def test_a_change_that_lasts_no_longer_than_moving_takes_is_borne() -> None:
    late = SimulatedRun(TWO, complete(SHARED, TWO), SLOW + 6, slow_between("p0", 1.5, SLOW, 99), pause_s=20.0).run()
    assert moved_at(late) == []


def test_a_few_percent_are_nothing_to_move_for() -> None:
    run = SimulatedRun(TWO, complete(SHARED, TWO), STEPS, slow_between("p0", 1.04, SLOW, 99)).run()
    assert moved_at(run) == []


def test_all_slower_alike_is_nothing_to_move_for() -> None:
    run = SimulatedRun(TWO, complete(SHARED, TWO), STEPS, lambda step: {"p0": 1.4, "p1": 1.4}).run()
    assert moved_at(run) == []


def test_the_lowest_rung_that_does_is_taken() -> None:
    """Shares move no byte, so pipelines with shares get others; a single one is cut anew, or all is planned anew."""
    decided = decide(_situation(SHARED, 1.5))
    assert (decided.rung, decided.reasons.moved_bytes) == ("shares", 0)
    assert [pipeline.share for pipeline in decided.plan.pipelines] == [16, 16]


def test_units_move_at_the_boundary_where_a_search_finds_no_more() -> None:
    asked = problem(1.0, 0.7, units=16, parameters=10**9)  # no pool has room for all of it
    decided = decide(_situation(plan((32, [("p0", 2, (0, 9)), ("p1", 2, (9, 16))])), 1.5, asked))
    assert decided.rung == "cuts"
    assert [stage.units for _, stage in decided.plan.stages()] == [((0, 8),), ((8, 16),)]
    assert decided.reasons.moved_bytes > 0


def test_reasons_are_numbers() -> None:
    reasons = decide(_situation(SHARED, 1.5)).reasons
    assert reasons.slowness == {"p0:2": 1.5, "p1:2": 1.0}
    assert reasons.stays_s == pytest.approx(simulate(complete(SHARED, TWO), slower(TWO, {"p0": 1.5})).step_s)
    assert reasons.gain_s == pytest.approx(50 * reasons.gain * 2.0)
    assert reasons.net_s == pytest.approx(reasons.gain_s - 0.5)


def test_what_is_kept_says_what_the_best_other_plan_would_have_cost() -> None:
    kept = decide(_situation(SHARED, 1.5, steps_left=1, pause_s=100.0))
    assert kept.rung == "keep"
    assert kept.plan == complete(SHARED, TWO)
    assert 0 < kept.reasons.gain_s < kept.reasons.cost_s


def test_no_plan_leaves_a_pool_idle_that_is_at_work() -> None:
    """Nobody would hear when it is fast again."""
    decided = decide(_situation(SHARED, 40.0))
    assert decided.plan.pools() == {"p0", "p1"}


@pytest.mark.parametrize(("after_s", "goes_back"), [(1.5, True), (1.01, False), (0.5, False)])
def test_a_change_that_made_steps_longer_is_undone_once(after_s: float, goes_back: bool) -> None:
    """Against its prediction, which knows no more than the plan's own times."""
    before, worse = complete(SHARED, TWO), complete(CHAIN, TWO)
    rebalancer = Rebalancer(TWO, STEPS)
    rebalancer.begin(before, 0)
    _steps(rebalancer, before, range(6), 1.0)
    rebalancer.begin(worse, 6, 0.5)
    decisions = _steps(rebalancer, worse, range(6, 20), after_s)
    assert [(decision.rung, decision.plan) for decision in decisions] == [("back", before)] * goes_back
    if goes_back:
        rebalancer.begin(before, 20, 0.5)
        assert _steps(rebalancer, before, range(20, 40), 2.0) == [], "and not undone again"


def _steps(rebalancer: Rebalancer, obeyed: Plan, steps: range, step_s: float) -> list[Decision]:
    """What it says to steps of chips that are as fast as planned."""
    stages_s = simulate(obeyed, TWO).busy_s
    said = []
    for step in steps:
        assert rebalancer.hear(step, step_s, stages_s) is None
        said.append(rebalancer.regret(step))
    return [decision for decision in said if decision]


def test_shares_keep_their_micro_batches_whole() -> None:
    sizes = [
        pipeline.model_copy(update={"micro_batch": size})
        for pipeline, size in zip(SHARED.pipelines, (2, 3), strict=True)
    ]
    shares = [sizes[0].model_copy(update={"share": 20}), sizes[1].model_copy(update={"share": 12})]
    obeyed = complete(SHARED.model_copy(update={"pipelines": tuple(shares)}), TWO)
    found = reshared(simulate(obeyed, slower(TWO, {"p0": 2.0})))
    assert found is not None
    assert [pipeline.share for pipeline in found.plan.pipelines] == [14, 18]


def test_a_plan_that_is_best_has_no_better_neighbour() -> None:
    now = simulate(complete(SHARED, TWO), TWO)
    assert reshared(now) is None
    assert recut(now) is None


def _situation(obeyed, ratio: float, asked: Problem = TWO, steps_left: int = 50, pause_s: float = 0.5) -> Situation:
    slowness = {("p0", 2): ratio, ("p1", 2): 1.0}
    return Situation(complete(obeyed, asked), asked, slowness, 2.0, steps_left, pause_s=pause_s)
