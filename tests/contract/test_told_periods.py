"""What every schedule of the registry tells of its speed and memory, against the simulator and the memory model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import Times, UnitTime
from balancer.errors import ScheduleError
from balancer.memory.peak import ChunkRoom, compute_peak
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.schedule.action import COMPUTING
from balancer.schedule.lowering import actions_of
from balancer.schedule.registry import schedule, schedules
from balancer.schedule.schedule import MicroBatchTimes
from balancer.simulate.simulate import Prediction, simulate
from tests.examples import out_of_100
from tests.unit.balancer.cases import pool, topology, unit, workload

ALL = pytest.mark.parametrize("name", [name for name in schedules() if schedule(name).wanted_placement(2) is None])
"""That have one chunk on each stage."""
BOUNDARY_BYTES = 1_000_000
MANY, MORE = 240, 60  # each round of any of these warm-ups ends after 60 micro-batches


class Line(NamedTuple):
    """A pipeline with a pool for each stage; `predict(schedule, n)` simulates a step of n micro-batches. `warmup` may
    not suit a schedule, which then has its usual ones."""

    times: MicroBatchTimes
    warmup: tuple[int, ...]
    predict: Callable[[str, int], Prediction]

    def warmups(self, name: str) -> tuple[int, ...]:
        return legal(name, self.warmup)


def legal(name: str, warmup: tuple[int, ...]) -> tuple[int, ...]:
    stages = range(len(warmup))
    try:
        schedule(name).check_warmups(stages, MANY, warmup)
    except ScheduleError:
        return schedule(name).usual_warmups(stages, MANY)
    return warmup


@st.composite
def lines(draw):
    stages = range(draw(st.integers(1, 5)))
    work = [draw(st.floats(0.1, 2.0)) for _ in stages]
    forward = [draw(st.floats(0.2, 0.8)) * each for each in work]
    weights = [draw(st.floats(0.0, 0.7)) * (all_ - f) for all_, f in zip(work, forward, strict=True)]
    hop_s, link_s = draw(st.sampled_from([0.0, 0.2, 0.7])), draw(st.sampled_from([0.0, 0.3, 1.0]))
    warmup = sorted((draw(st.integers(1, 6)) for _ in stages), reverse=True)
    link = {"bytes_per_s": BOUNDARY_BYTES / (link_s or 1e-9), "latency_s": hop_s}
    chips = topology(*(pool(f"p{s}", 1) for s in stages), **link)
    kinds = [unit(f"k{s}", boundary=BOUNDARY_BYTES) for s in stages]
    times = Times({(f"p{s}", 1, f"k{s}"): UnitTime(forward[s], work[s] - forward[s], weights[s]) for s in stages})

    def predict(name: str, micro_batches: int) -> Prediction:
        step, depths = workload(kinds, micro_batches), legal(name, tuple(warmup))
        placed = tuple(StagePlan(pool=f"p{s}", units=((s, s + 1),), warmup=depths[s]) for s in stages)
        written = Plan(schedule=name, pipelines=(PipelinePlan(share=micro_batches, stages=placed),))
        problem = Problem(chips, step, times)
        return simulate(complete(written, problem), problem)

    hops = [hop_s + link_s] * (len(stages) - 1)
    links = (link_s, link_s) if hops else (0.0, 0.0)
    return Line(MicroBatchTimes(work, forward, hops, links, weights), tuple(warmup), predict)


def slope_s(line: Line, name: str) -> float:
    return (line.predict(name, MANY + MORE).compute_s - line.predict(name, MANY).compute_s) / MORE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1f1b", "gpipe"])
@given(line=lines())
@out_of_100(15)
def test_in_the_steady_state_one_micro_batch_more_takes_the_period_that_it_tells(name, line):
    assert slope_s(line, name) == pytest.approx(schedule(name).period_s(line.times, line.warmups(name)), rel=0.01)


@pytest.mark.slow
@given(line=lines())
@out_of_100(3)
def test_what_is_made_on_a_clock_takes_no_less_than_it_tells(line):
    assert slope_s(line, "zero-bubble") >= 0.99 * schedule("zero-bubble").period_s(line.times, line.warmup)


@ALL
@given(line=lines())
def test_the_first_micro_batch_takes_a_round_trip(name, line):
    """Less where weight gradients need not be made on the way."""
    took_s, trip_s = line.predict(name, 1).compute_s, line.times.round_trip_s
    assert took_s == pytest.approx(trip_s) if not schedule(name).timed else took_s <= trip_s * (1 + 1e-6)
    assert took_s >= trip_s - sum(line.times.weight_s) - 1e-6


@ALL
@given(line=lines(), micro_batches=st.integers(1, 12))
def test_the_memory_model_counts_what_it_keeps_in_flight(name, line, micro_batches):
    pipeline = line.predict(name, micro_batches).scenario.plan.pipelines[0]
    for s, (actions, warmup) in enumerate(zip(actions_of(pipeline, name), line.warmups(name), strict=True)):
        rooms, told = {s: ChunkRoom(units=(), ends=1.0)}, schedule(name).in_flight(micro_batches, warmup)
        found = compute_peak(actions, rooms, [0.0] * sum(action.kind in COMPUTING for action in actions))
        assert found <= told if schedule(name).timed else found == told


@ALL
@given(line=lines())
def test_a_search_expects_a_period_between_the_slowest_stage_and_what_usual_warmups_take(name, line):
    told, stages = schedule(name), range(len(line.warmup))
    usual = told.usual_warmups(stages, MANY)
    told.check_warmups(stages, MANY, usual)
    least, most = max(*line.times.work_s, *line.times.link_s), told.period_s(line.times, usual)
    assert least * (1 - 1e-9) <= told.expected_period_s(line.times, MANY) <= most * (1 + 1e-9)


@given(line=lines(), micro_batches=st.integers(1, 12))
def test_where_weight_gradients_fill_a_step_takes_no_less_than_a_search_expects(line, micro_batches):
    told = schedule("zero-bubble")
    period_s = told.expected_period_s(line.times, micro_batches)
    expected_s = micro_batches * period_s + told.expected_fill_s(line.times, micro_batches, period_s)
    assert line.predict("zero-bubble", micro_batches).compute_s >= expected_s * (1 - 1e-4)


@ALL
@given(line=lines())
def test_warmups_that_hide_hops_are_legal_and_no_less_deep(name, line):
    told, stages = schedule(name), range(len(line.warmup))
    usual = told.usual_warmups(stages, MANY)
    deep = told.hiding_warmups(stages, line.times, usual)
    told.check_warmups(stages, MANY, deep)
    assert all(n >= least for n, least in zip(deep, usual, strict=True))


@ALL
def test_a_stage_without_work_hides_hops_as_any_other(name):
    times = MicroBatchTimes([0.0, 1.0], [0.0, 0.3], [0.1], weight_s=[0.0, 0.3])
    usual = schedule(name).usual_warmups(range(2), MANY)
    assert all(
        n >= least for n, least in zip(schedule(name).hiding_warmups(range(2), times, usual), usual, strict=True)
    )
