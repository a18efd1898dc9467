"""What a measured step took beyond its prediction, where it is known why: steps that were simulated with a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.plan.plan import Place
from balancer.problem import Problem
from balancer.search.ledger import ledger
from balancer.search.missed import CAUSES, MeasuredStage, MeasuredStep
from balancer.search.pool_ledger import ALL, PoolTime, pool_ledgers
from balancer.simulate.scenario import Pace
from balancer.simulate.simulate import Prediction, Scenario, run
from tests.unit.balancer.cases import pipelines, plan, pool, topology, workload

NAMED = 0.01
"""Of a step: less than this may be left without a name."""


def predicted(rate: float = 1e9, **scenario: object) -> Prediction:
    """Two pools in one pipeline, and one more by itself."""
    chips = topology(pool("a", 2), pool("b", 1, 2.0), bytes_per_s=rate)
    work = workload(8, batch=24)
    written = plan((16, [("a", 1, (0, 3)), ("b", 1, (3, 8))]), (8, [("a", 1, (0, 8))]))
    times = datasheet_times(chips, work)
    return run(Scenario(complete(written, Problem(chips, work)), Problem(chips, work, times), **scenario))


def measured(found: Prediction, pauses: Mapping[Place, float] = {}, late_s: float = 0.0) -> MeasuredStep:
    """What the stages of a simulated step would tell of themselves."""
    stages = {}
    for place, busy_s in found.busy_s.items():
        *computed, (_, begin, end) = found.spans[place]
        waited_s = found.step_s - busy_s - (end - begin) - pauses.get(place, 0.0) * len(computed)
        stages[place] = MeasuredStage(busy_s, end - begin, waited_s, late_s)
    return MeasuredStep(found.step_s, stages)


def named(expected: Prediction, found: MeasuredStep, cause: str) -> None:
    terms = ledger(expected, found)
    lost = 1 - expected.efficiency_vs_ideal * expected.step_s / found.step_s
    assert sum(terms.values()) == pytest.approx(lost, abs=1e-12)
    assert abs(terms["other"]) < NAMED
    grown = 1 - expected.step_s / found.step_s
    assert terms[cause] == pytest.approx(grown, abs=NAMED)
    assert all(abs(terms[other]) < NAMED for other in CAUSES if other != cause)


def test_chips_that_are_slower_than_they_were_measured() -> None:
    slow = {(0, 1): Pace(1.3), (1, 0): Pace(1.1)}
    named(predicted(), measured(predicted(paces=slow)), "slower_chips")


def test_hosts_that_take_time_between_actions() -> None:
    busy = predicted().busy_s[0, 1] / 32
    pauses = {place: Pace(pause_s=0.1 * busy) for place in predicted().busy_s}
    found = measured(predicted(paces=pauses), {place: pace.pause_s for place, pace in pauses.items()})
    named(predicted(), found, "host")


def test_links_that_carry_less_than_they_did() -> None:
    slow = predicted(rate=6e5)
    late_s = slow.step_s - run(replace(slow.scenario, free_links=True)).step_s
    named(predicted(), measured(slow, late_s=late_s), "slower_links")


def test_what_no_rank_has_waited_for_has_no_name() -> None:
    terms = ledger(predicted(), measured(predicted(rate=6e5)))
    assert terms["slower_links"] == pytest.approx(0)
    assert terms["other"] > NAMED


@given(case=pipelines(), ratios=st.lists(st.floats(0.8, 1.5), min_size=5, max_size=5))
def test_stages_of_any_speed_leave_nothing_unnamed(case, ratios) -> None:
    chips, work, written = case
    scenario = Scenario(complete(written, Problem(chips, work)), Problem(chips, work, datasheet_times(chips, work)))
    paces = {place: Pace(ratios[place[1]]) for place, _ in scenario.plan.stages()}
    terms = ledger(run(scenario), measured(run(replace(scenario, paces=paces))))
    assert abs(terms["other"]) < 1e-6


def test_what_pools_do_usefully_is_the_efficiency_against_the_ideal() -> None:
    found = predicted()
    spent = {}
    for name, count in (("a", 2), ("b", 1)):
        places = [place for place, stage in found.plan.stages() if stage.pool == name]
        busy = sum(found.busy_s[place] for place in places) / count / found.step_s
        spent[name] = PoolTime(busy, 0.0, 1 - busy, 0.0, 0.0)
    ledgers = pool_ledgers(found.scenario, found.step_s, spent)
    assert all(sum(parts) == pytest.approx(1) for parts in ledgers.values())
    assert ledgers[ALL].useful == pytest.approx(found.efficiency_vs_ideal)
    assert all(ledgers[name].repeated == pytest.approx(0, abs=1e-9) for name in spent)
    slower = {name: time._replace(compute=1.1 * time.compute, bubble=time.bubble - 0.1 * time.compute)
              for name, time in spent.items()}  # fmt: skip
    assert pool_ledgers(found.scenario, found.step_s, slower)["b"].repeated == pytest.approx(0.1 * spent["b"].compute)


def test_a_pool_that_has_nothing_to_do_is_idle() -> None:
    found = predicted()
    chips = topology(*found.scenario.topology.pools, pool("c", 1), bytes_per_s=1e9)
    asked = replace(found.scenario.problem, topology=chips, times=datasheet_times(chips, found.scenario.workload))
    spent = {"a": PoolTime(0.5, 0.0, 0.5, 0.0, 0.0), "b": PoolTime(0.5, 0.0, 0.5, 0.0, 0.0)}
    ledgers = pool_ledgers(replace(found.scenario, problem=asked), found.step_s, spent)
    assert ledgers["c"] == (0, 0, 0, 0, 0, 0, 1)
    assert ledgers[ALL].useful == pytest.approx(run(replace(found.scenario, problem=asked)).efficiency_vs_ideal)
    assert pool_ledgers(found.scenario, found.step_s, {}) == {}
