"""Schedules that are made on a clock: as fast as can be proved, within their bounds, and never slower than 1F1B."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import accumulate
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.errors import PlanError
from balancer.plan.plan import ChunkTicks, Plan, Ticks
from balancer.problem import Problem
from balancer.schedule.action import Kind
from balancer.schedule.clock import replay
from balancer.schedule.registry import schedule, schedules
from balancer.simulate.simulate import simulate
from tests.examples import out_of_100
from tests.unit.balancer.cases import pipelines, plan, pool, topology, unit, workload

TIMED = [name for name in schedules() if schedule(name).timed]
THREE = [("a", 1, (0, 8)), ("b", 1, (8, 16)), ("c", 1, (16, 24))]


def problem(units=24, batch=32, hop=0.0, speeds=(1.0, 1.0, 1.0), gib=80.0):
    """Three chips that take a second for a third of the model (F : I : W = 5 : 6 : 4), `hop` seconds apart."""
    chips = topology(
        *(pool(name, 1, speed, gib=gib) for name, speed in zip("abc", speeds, strict=True)), bytes_per_s=1e6
    )
    work = workload(units, batch=batch, gflops=1000 / units, boundary=round(hop * 1e6))
    return Problem(chips, work, datasheet_times(chips, work))


def predict(name, asked, stages=THREE, **fields):
    return simulate(complete(plan((asked.workload.global_batch, stages), schedule=name, **fields), asked), asked)


def least(prediction):
    """No schedule is faster: each stage computes all its part after its first forward can begin."""
    s, pipeline = prediction.scenario, prediction.plan.pipelines[0]
    chunks, hops = pipeline.ticks.chunks, pipeline.ticks.hops
    ways = [f + activation + latency for (f, *_), (activation, _, latency) in zip(chunks, hops, strict=False)]
    begin = list(accumulate(ways, initial=0))
    placed, work = pipeline.stage_of_chunk(), Counter()
    for stage, each in zip(placed, chunks, strict=True):
        work[stage] += sum(each)
    ticks_s = max(prediction.busy_s[0, stage] for stage in work) / pipeline.micro_batches / max(work.values())
    return ticks_s * max(begin[placed.index(stage)] + s.workload.global_batch * work[stage] for stage in work)


@pytest.mark.parametrize("hop", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
@pytest.mark.parametrize("name", ["zero-bubble", pytest.param("v", marks=pytest.mark.slow)])
def test_with_memory_the_bubble_is_the_way_of_the_first_forward_alone(name, hop):
    prediction = predict(name, problem(hop=hop))
    assert prediction.compute_s == pytest.approx(least(prediction), rel=2e-3)
    assert prediction.compute_s < predict("1f1b", problem(hop=hop)).compute_s


def test_stages_and_hops_that_differ_are_reckoned_with():
    uneven = problem(hop=0.3, speeds=(1.1, 0.9, 1.0))
    zero, plain = predict("zero-bubble", uneven), predict("1f1b", uneven)
    assert zero.compute_s == pytest.approx(least(zero), rel=3e-3)
    assert plain.compute_s / zero.compute_s > 1.04


def test_interleaving_fills_faster_where_hops_cost_nothing():
    free, plain = predict("interleaved", problem()), predict("1f1b", problem())
    assert plain.compute_s == pytest.approx(34)
    assert free.compute_s == pytest.approx(33, rel=0.01)


@given(case=pipelines(most_stages=4))
@out_of_100(25)
def test_zero_bubble_is_never_slower_than_1f1b_with_the_same_bounds(case):
    chips, work, written = case
    asked = Problem(chips, work, datasheet_times(chips, work))
    plain = complete(written, asked)
    same = plain.model_copy(update={"schedule": "zero-bubble"})
    zero = simulate(complete(same, asked), asked)
    assert complete(zero.plan, asked) == zero.plan
    assert zero.compute_s <= simulate(plain, asked).compute_s * 1.001
    assert zero.compute_s >= least(zero) * 0.999


SLOW = st.tuples(st.sampled_from([2, 8]), st.sampled_from([1e6, 1e7, 1e8]))
"""Groups whose collectives take a while: 0.01 to 1.75 s where products take 0.01 to 0.3 s and more."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMED)
@given(case=SLOW.flatmap(lambda slow: pipelines(most_stages=3, tp=slow[0], interconnect=slow[1])))
@out_of_100(25)
def test_groups_with_slow_collectives_are_never_slower_than_with_1f1b(name, case):
    """A backward in two actions shows those that a whole one hides."""
    chips, work, written = case
    if name != "zero-bubble" and len(work.units) < 2 * len(written.pipelines[0].stages):
        return
    asked = Problem(chips, work, datasheet_times(chips, work))
    if name == "zero-bubble":
        written = complete(written, asked)
    timed = complete(written.model_copy(update={"schedule": name}), asked)
    plain = complete(timed.model_copy(update={"schedule": "1f1b"}), asked)
    assert simulate(timed, asked).compute_s <= simulate(plain, asked).compute_s * 1.001


def test_collectives_that_only_a_whole_backward_hides_decide_for_it():
    """Weights' gradients in the bubble would save less than the collectives beside them cost."""
    chips, work = topology(pool("a", 16, interconnect=1e7)), workload(8, batch=8)
    asked = Problem(chips, work, datasheet_times(chips, work))
    written = complete(plan((8, [("a", 8, (0, 4)), ("a", 8, (4, 8))])), asked)
    timed = complete(written.model_copy(update={"schedule": "zero-bubble"}), asked)
    assert timed.pipelines[0].ticks.chunks[0].hidden > 0
    assert simulate(timed, asked).compute_s == pytest.approx(simulate(written, asked).compute_s)


def test_ticks_of_an_older_plan_hide_nothing():
    assert Ticks.model_validate({"chunks": [[5, 6, 4]], "hops": []}).chunks == (ChunkTicks(5, 6, 4, 0),)


@given(case=pipelines(most_stages=4), name=st.sampled_from(TIMED))
@out_of_100(25)
def test_actions_wait_for_what_they_read(case, name):
    """In simulated time: a forward for the one before, an input's gradient for the one behind, a weight's for both."""
    chips, work, written = case
    if len(work.units) < 2 * len(written.pipelines[0].stages):
        return
    asked = Problem(chips, work, datasheet_times(chips, work))
    spans = simulate(complete(written.model_copy(update={"schedule": name}), asked), asked).spans
    begins = {(a.kind, a.chunk, a.micro_batch): start for each in spans.values() for a, start, _ in each}
    ends = {(a.kind, a.chunk, a.micro_batch): end for each in spans.values() for a, _, end in each}
    for (kind, chunk, m), start in begins.items():
        sources = {
            Kind.F: [(Kind.F, chunk - 1)],
            Kind.B: [(Kind.F, chunk), (Kind.B, chunk + 1), (Kind.I, chunk + 1)],
            Kind.I: [(Kind.F, chunk), (Kind.B, chunk + 1), (Kind.I, chunk + 1)],
            Kind.W: [(Kind.I, chunk)],
        }
        assert all(ends.get((*source, m), 0.0) <= start + 1e-9 for source in sources.get(kind, []))


def test_the_lists_follow_from_the_plan_alone():
    written = complete(plan((32, THREE), schedule="zero-bubble"), problem(hop=0.3))
    read = Plan.from_json(written.to_json())
    assert read == written
    slower = problem(hop=0.3, speeds=(0.5, 1.0, 2.0))
    assert complete(read, slower).pipelines[0].ticks == written.pipelines[0].ticks


def test_memory_bounds_how_much_waits():
    """A stage keeps 8 units x 1 GB of a micro-batch."""
    roomy = problem(hop=0.6)
    heavy = replace(roomy.workload, units=(unit(gflops=1000 / 24, kept=10**9, boundary=600_000),) * 24)
    tight = replace(roomy, workload=heavy, topology=problem(hop=0.6, gib=45.0).topology)
    few, many = predict("zero-bubble", tight), predict("zero-bubble", roomy)
    assert max(few.plan.pipelines[0].warmups()) < max(many.plan.pipelines[0].warmups())
    assert many.compute_s < few.compute_s


def test_stages_of_one_range_get_the_chunks_that_a_schedule_wants():
    v, again = (complete(plan((32, THREE), schedule=name), problem()) for name in ("v", "interleaved"))
    assert [stage.units for stage in v.pipelines[0].stages] == [
        ((0, 4), (20, 24)),
        ((4, 8), (16, 20)),
        ((8, 12), (12, 16)),
    ]
    assert [stage.units for stage in again.pipelines[0].stages] == [
        ((0, 4), (12, 16)),
        ((4, 8), (16, 20)),
        ((8, 12), (20, 24)),
    ]
    assert complete(v, problem()) == v


@pytest.mark.parametrize(
    ("name", "stages", "key", "rule"),
    [
        ("v", [("a", 1, (0, 4), (12, 24)), ("b", 1, (4, 12))], "pipelines[0].stages", None),
        ("v", [("a", 1, (0, 4), (8, 12)), ("b", 1, (4, 8), (12, 24))], "pipelines[0].stages", "and back"),
        ("interleaved", [("a", 1, (0, 4), (20, 24)), ("b", 1, (4, 20))], "pipelines[0].stages", "one order"),
    ],
)
def test_chunks_that_do_not_fit_are_refused_with_what_would(name, stages, key, rule):
    written = plan((32, stages), schedule=name)
    if rule is None:
        complete(written, problem())
        return
    with pytest.raises(PlanError, match=rule) as error:
        complete(written, problem())
    assert error.value.key == key


def test_a_model_with_too_few_cuts_is_refused():
    with pytest.raises(PlanError, match="6 chunks on 3 stages") as error:
        complete(plan((32, [("a", 1, (0, 1)), ("b", 1, (1, 2)), ("c", 1, (2, 4))]), schedule="v"), problem(4))
    assert error.value.key == "pipelines[0].stages"


def test_ticks_of_other_chunks_are_refused():
    written = plan((32, THREE), schedule="zero-bubble")
    wrong = written.pipelines[0].model_copy(update={"ticks": Ticks(chunks=(ChunkTicks(1, 1, 1),), hops=())})
    with pytest.raises(PlanError, match="each of 3 chunks") as error:
        complete(written.model_copy(update={"pipelines": (wrong,)}), problem())
    assert error.value.key == "pipelines[0].ticks"


@pytest.mark.slow
def test_sixteen_stages_and_256_micro_batches_are_made_in_no_time():
    placed = tuple(range(16))
    chunks = tuple(ChunkTicks(1000 + 13 * s, 1100, 900 - 7 * s) for s in placed)
    uneven = Ticks(chunks=chunks, hops=((300, 300, 10),) * 15)
    before = process_time()
    made = schedule("zero-bubble").compute(placed, 256, (20,) * 16, uneven)
    assert process_time() - before < 5, "a second by itself, and generous"
    assert replay(made, placed, uneven) < 1.05 * 256 * max(map(sum, uneven.chunks))
