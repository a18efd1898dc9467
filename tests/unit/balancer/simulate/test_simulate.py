"""The simulator against bounds, against hand-made timelines, and against itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import accumulate, pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times, units_time
from balancer.memory.memory import stage_bytes
from balancer.plan.recompute import RecomputedUnits
from balancer.problem import Problem
from balancer.schedule.action import Kind
from balancer.schedule.registry import schedule, schedules
from balancer.search.ledger import TERMS, efficiency, ledger
from balancer.search.missed import CAUSES, MeasuredStep
from balancer.simulate.simulate import simulate
from tests.examples import out_of_100
from tests.unit.balancer.cases import halved, pipelines, plan, pool, topology, unit, workload
from tests.unit.balancer.simulate.predicted import predict


def costs(prediction):
    """Per stage forward and backward seconds, and per boundary hop seconds, of one micro-batch of pipeline 0."""
    s = prediction.scenario
    pipeline = s.plan.pipelines[0]
    each = [units_time(s.times, s.workload, stage.pool, stage.tp, stage.unit_indices()) for stage in pipeline.stages]
    hops = []
    for here, there in pairwise(pipeline.stages):
        link = s.topology.link(here.pool, there.pool)
        hops.append(link.latency_s + s.workload.units[here.units[0][1] - 1].boundary_bytes / link.bytes_per_s)
    return each, hops


WHOLE = [name for name in schedules() if not schedule(name).timed]
"""Schedules whose backwards are one action."""


@given(case=pipelines(), name=st.sampled_from(WHOLE))
def test_never_beats_the_lower_bound(case, name):
    chips, work, written = case
    prediction = predict(chips, work, written.model_copy(update={"schedule": name}))
    each, hops = costs(prediction)
    before = list(accumulate([t.total_s + 2 * hop for t, hop in zip(each, hops, strict=False)], initial=0.0))
    bound = max(lead + work.global_batch * t.total_s for lead, t in zip(before, each, strict=True))
    assert prediction.compute_s >= bound * (1 - 1e-9)
    assert prediction.compute_s >= (before[-1] + each[-1].total_s) * (1 - 1e-9)
    assert prediction.efficiency_vs_ideal <= 1 + 1e-9


@given(case=pipelines())
def test_1f1b_never_exceeds_its_upper_bound(case):
    chips, work, written = case
    prediction = predict(chips, work, written)
    each, hops = costs(prediction)
    slowest = max(t.total_s + 2 * hop for t, hop in zip(each, [*hops, 0.0], strict=True))
    bound = sum(t.total_s for t in each) + 2 * sum(hops) + (work.global_batch - 1) * slowest
    assert prediction.compute_s <= bound * (1 + 1e-9)


@given(case=pipelines(), name=st.sampled_from(WHOLE))
def test_spans_are_the_stage_s_actions_in_order_without_overlap(case, name):
    chips, work, written = case
    prediction = predict(chips, work, written.model_copy(update={"schedule": name}))
    for spans in prediction.spans.values():
        kinds = Counter(action.kind for action, _, _ in spans)
        assert kinds == {Kind.F: work.global_batch, Kind.B: work.global_batch, Kind.STEP: 1}
        assert all(end <= start for (_, _, end), (_, start, _) in pairwise(spans))
    begins = {(a.kind, a.chunk, a.micro_batch): start for spans in prediction.spans.values() for a, start, _ in spans}
    ends = {(a.kind, a.chunk, a.micro_batch): end for spans in prediction.spans.values() for a, _, end in spans}
    for (kind, chunk, m), start in begins.items():
        source = {Kind.F: (Kind.F, chunk - 1, m), Kind.B: (Kind.B, chunk + 1, m)}.get(kind)
        assert source not in ends or ends[source] <= start


@given(case=pipelines(), scale=st.floats(0.1, 1000))
def test_time_scale_slows_everything_alike(case, scale):
    one, scaled = predict(*case), predict(*case, time_scale=scale)
    assert scaled.step_s == pytest.approx(scale * one.step_s)
    assert scaled.efficiency_vs_ideal == pytest.approx(one.efficiency_vs_ideal)
    assert ledger(scaled) == pytest.approx(ledger(one), abs=1e-9)


@given(case=pipelines())
def test_free_links_are_never_slower(case):
    assert predict(*case, free_links=True).step_s <= predict(*case).step_s * (1 + 1e-9)


def test_two_equal_stages_by_hand():
    """F takes 1 s, B 2 s, no links: 4 micro-batches end after (4 + 2 - 1) * 3 s."""
    chips, work = topology(pool("a", 2)), workload(2, batch=4, gflops=1000, boundary=0)
    prediction = predict(chips, work, plan((4, [("a", 1, (0, 1)), ("a", 1, (1, 2))])))
    assert prediction.compute_s == pytest.approx(15)
    assert prediction.busy_s == pytest.approx({(0, 0): 12, (0, 1): 12})


def test_a_hop_delays_and_a_busy_wire_queues():
    """Forwards of 1 s over a wire that needs 4 s a message: the second stage gets one every 4 s."""
    chips = topology(pool("a", 1), pool("b", 1), bytes_per_s=1e6, latency_s=0.5)
    work = workload(2, batch=3, gflops=1000, boundary=4_000_000)
    prediction = predict(chips, work, plan((3, [("a", 1, (0, 1)), ("b", 1, (1, 2))]), schedule="gpipe"))
    starts = [start for action, start, _ in prediction.spans[0, 1] if action.kind is Kind.F]
    assert starts == pytest.approx([1 + 4 + 0.5, 1 + 8 + 0.5, 1 + 12 + 0.5])


def test_pipelines_share_the_wire_between_two_hosts():
    chips = topology(pool("a", 2), pool("b", 2), bytes_per_s=1e6)
    work = workload(2, batch=2, gflops=1000, boundary=4_000_000)
    two = predict(chips, work, plan(*[(1, [("a", 1, (0, 1)), ("b", 1, (1, 2))])] * 2))
    starts = [two.spans[p, 1][0][1] for p in (0, 1)]
    assert starts == pytest.approx([5, 9])


def test_gradients_go_to_owners_and_parameters_come_back():
    """Two pipelines, one unit of a million parameters each owns: 4 MB of gradients and 4 MB of parameters each way."""
    chips = topology(pool("a", 1), pool("b", 1), bytes_per_s=1e6, latency_s=0.25)
    work = workload([unit("x", parameters=1_000_000), unit("y", parameters=1_000_000)], batch=2)
    prediction = predict(chips, work, plan((1, [("a", 1, (0, 2))]), (1, [("b", 1, (0, 2))])))
    norm_s, each_way_s = 2 * 0.25, 4 + 0.25
    assert prediction.sync_s == pytest.approx(2 * each_way_s + norm_s, rel=1e-6)


def test_a_tied_weight_on_two_stages_is_summed_at_its_first():
    chips = topology(pool("a", 1), pool("b", 1), bytes_per_s=1e6)
    units = [unit("x", parameters=1_000_000), unit("y", parameters=0)]
    shape = plan((1, [("a", 1, (0, 1)), ("b", 1, (1, 2))]))
    tied = predict(chips, workload(units, batch=1, tied=((0, 1),)), shape)
    assert predict(chips, workload(units, batch=1), shape).sync_s == pytest.approx(0, abs=1e-6)
    assert tied.sync_s > 3.8


@given(case=pipelines(), miss=st.floats(1.0, 3.0))
def test_the_ledger_sums_to_what_was_lost(case, miss):
    prediction = predict(*case)
    terms = ledger(prediction)
    assert tuple(terms) == TERMS
    assert sum(terms.values()) == pytest.approx(1 - prediction.efficiency_vs_ideal, abs=1e-12)
    assert all(terms[term] >= -1e-9 for term in ("rounding", "imbalance", "bubble", "exposed_link", "recompute"))
    assert terms["other"] == pytest.approx(0, abs=1e-9)
    measured = ledger(prediction, MeasuredStep(miss * prediction.step_s, {}))
    assert tuple(measured) == (*TERMS[:-1], *CAUSES, "other")
    assert sum(measured.values()) == pytest.approx(1 - prediction.efficiency_vs_ideal / miss, abs=1e-12)
    assert efficiency(prediction)["ledger_bubble"] == terms["bubble"]


RECOMPUTE = st.sampled_from(["none", "full", RecomputedUnits(full=1)])


def again(work):
    """The workload whose units can make three quarters of their forward again, and keep nothing for it."""
    units = tuple(
        replace(unit, recomputed={"full": replace(unit, remade_flops=0.75 * unit.forward_flops)}) for unit in work.units
    )
    return replace(work, units=units)


def recomputing(written, words):
    """The plan whose first pipeline's stages recompute that."""
    pipeline = written.pipelines[0]
    stages = tuple(
        stage.model_copy(update={"recompute": word}) for stage, word in zip(pipeline.stages, words, strict=False)
    )
    return written.model_copy(update={"pipelines": (pipeline.model_copy(update={"stages": stages}),)})


@given(
    case=pipelines(tp=2, interconnect=1e7),
    words=st.lists(RECOMPUTE, min_size=5, max_size=5),
    name=st.sampled_from(["1f1b", "zero-bubble"]),
)
@out_of_100(30)
def test_the_ledger_sums_up_where_stages_recompute(case, words, name):
    """Rounding apart: where collectives weigh on slow chips less than on fast ones, a cut may beat their mean."""
    chips, work, written = case
    prediction = predict(chips, again(work), recomputing(written, words).model_copy(update={"schedule": name}))
    terms = ledger(prediction)
    assert sum(terms.values()) == pytest.approx(1 - prediction.efficiency_vs_ideal, abs=1e-12)
    assert all(terms[term] >= -1e-9 for term in ("imbalance", "bubble", "exposed_link", "recompute"))


def test_what_is_made_again_is_recompute_and_no_imbalance():
    chips, work = topology(pool("a", 1), pool("b", 1)), again(workload(8, batch=16))
    even = plan((16, [("a", 1, (0, 4)), ("b", 1, (4, 8))]))
    plain = predict(chips, work, even)
    for word in ("full", RecomputedUnits(full=4)):
        full = predict(chips, work, recomputing(even, [word] * 2))
        terms = ledger(full)
        assert terms["recompute"] == pytest.approx(0.25 * max(plain.busy_s.values()) / full.step_s)
        assert terms["imbalance"] == pytest.approx(0)
        assert terms["rounding"] == pytest.approx(0)


def test_a_cut_that_suits_what_is_made_again_is_no_imbalance():
    """A stage that takes a quarter longer for a unit has eight where the other has ten, and not nine."""
    chips, work = topology(pool("a", 1), pool("b", 1)), again(workload(18, batch=16))
    suits = recomputing(plan((16, [("a", 1, (0, 8)), ("b", 1, (8, 18))])), ["full", "none"])
    assert ledger(predict(chips, work, suits))["imbalance"] == pytest.approx(0)


def test_the_ledger_names_the_cause():
    even = plan((16, [("a", 1, (0, 4)), ("b", 1, (4, 8))]))
    work, far = workload(8, batch=16), topology(pool("a", 1), pool("b", 1), bytes_per_s=1e6, latency_s=1.0)

    def grows(prediction, base):
        mine, theirs = ledger(prediction), ledger(base)
        return max(TERMS, key=lambda term: mine[term] - theirs[term])

    base = predict(topology(pool("a", 1), pool("b", 1)), work, even)
    assert max(ledger(base), key=ledger(base).get) == "bubble"
    lopsided = plan((16, [("a", 1, (0, 2)), ("b", 1, (2, 8))]))
    assert grows(predict(topology(pool("a", 1), pool("b", 1)), work, lopsided), base) == "imbalance"
    assert grows(predict(far, work, even), base) == "exposed_link"
    assert grows(predict(topology(pool("a", 1), pool("b", 1), pool("c", 4)), work, even), base) == "idle"
    coarse = workload(8, batch=16, cuts=(0, 2))
    rough = plan((16, [("a", 1, (0, 2)), ("b", 1, (2, 8))]))
    assert grows(predict(topology(pool("a", 1), pool("b", 1)), coarse, rough), base) == "rounding"


def test_several_chunks_on_a_stage_run():
    chips, work = topology(pool("a", 1), pool("b", 1)), workload(8, batch=4)
    v = plan((4, [("a", 1, (0, 2), (6, 8)), ("b", 1, (2, 6))]))
    prediction = predict(chips, work, v)
    assert Counter(a.chunk for a, _, _ in prediction.spans[0, 0] if a.kind is Kind.F) == {0: 4, 2: 4}


@given(case=pipelines())
def test_memory_counts_what_1f1b_keeps_in_flight(case):
    chips, work, written = case
    completed = complete(written, Problem(chips, work))
    for s, stage in enumerate(completed.pipelines[0].stages):
        need = stage_bytes(work, completed, 0, s, "float32")
        held = len(stage.unit_indices())
        in_flight = min(work.global_batch, len(completed.pipelines[0].stages) - s)
        boundaries = (s > 0) + (s < len(completed.pipelines[0].stages) - 1)
        kept = (held + 1) * in_flight * 1_000_000  # the units' own, and what leaves the stage
        assert kept <= need.activations + need.gradients  # the first backwards make gradients while they free the rest
        if work.global_batch > in_flight:
            assert kept <= need.activations <= kept + 3 * 1_000_000
        text = 16 * 128 * work.global_batch * (boundaries < 2)
        assert need.messages == boundaries * 2 * 1_000_000 + text  # one that comes early and one that leaves late
        assert (need.weights, need.gradients, need.optimizer) == (held * 4e6, held * 4e6, held * 8e6)
        half = stage_bytes(work, completed, 0, s, "bfloat16")
        assert (half.weights, half.optimizer) == (held * 2e6, held * 12e6)


def test_simulate_takes_milliseconds():
    chips, work = topology(pool("a", 4)), workload(8, batch=32)
    completed = complete(plan((32, [("a", 1, (i, i + 2)) for i in range(0, 8, 2)])), Problem(chips, work))
    times, taken = datasheet_times(chips, work), []
    for _ in range(5):
        began = process_time()
        simulate(completed, Problem(chips, work, times))
        taken.append(process_time() - began)
    assert min(taken) < 0.02  # usually 0.0015


def test_gradients_that_hold_up_messages_are_in_the_spans_of_who_waits():
    """A copy that begins 3 s later gives the last unit's 4 MB after 2 s forward and 2 s backward: they have the link to
    b from 7 s to 11 s, and an activation that was made at 9 s is there at 12 s. Three chips of b get a third of them
    each, and it comes in between."""

    def third_forward(parameters: int, tp: int = 1) -> tuple[float, float]:
        chips = topology(pool("a", 2), pool("b", tp, 1 / tp), bytes_per_s=1e6)
        written = plan((1, [("a", 1, (0, 2))]), (4, [("a", 1, (0, 1)), ("b", tp, (1, 2))]))
        found = predict(chips, workload(2, 5, gflops=1000, parameters=parameters), written)
        assert found.compute_s == pytest.approx(found.step_s)
        starts = [start for action, start, _ in found.spans[1, 1] if action.kind is Kind.F]
        return starts[2], found.compute_s

    assert third_forward(1) == pytest.approx((10, 19))
    assert third_forward(1_000_000) == pytest.approx((12, 21))
    assert third_forward(1_000_000, tp=3) == pytest.approx((7 + 2 / 3 * 4 + 1, 7 + 2 / 3 * 4 + 10))


def test_a_codec_shortens_what_a_link_carries_in_its_direction():
    chips = topology(pool("a", 1), pool("b", 1), bytes_per_s=1e6)
    (link,) = chips.links
    work, written = workload(2, 1), plan((1, [("a", 1, (0, 1)), ("b", 1, (1, 2))]))
    plain = predict(chips, work, written)
    coded = predict(replace(chips, links=(replace(link, activation_ratio=0.25, gradient_ratio=0.5),)), work, written)
    message_s = work.units[0].boundary_bytes / 1e6
    assert plain.compute_s - coded.compute_s == pytest.approx(0.75 * message_s + 0.5 * message_s)
    assert coded.link_s == pytest.approx(0.5 * message_s)


@pytest.mark.parametrize(("one", "other", "part"), [("float32", "float32", 1.0), ("float32", "float16", 0.5)])
def test_the_narrower_of_two_precisions_crosses(one, other, part):
    chips = topology(pool("a", 1, precision=one), pool("b", 1, precision=other), bytes_per_s=1e6)
    work, written = halved(workload(2, 1)), plan((1, [("a", 1, (0, 1)), ("b", 1, (1, 2))]))
    assert predict(chips, work, written).link_s == pytest.approx(part * work.units[0].boundary_bytes / 1e6)


def test_activations_are_counted_in_the_stage_s_precision():
    chips = topology(pool("a", 1), pool("b", 1, precision="float16"))
    work = halved(workload(2, 1))
    completed = complete(plan((1, [("a", 1, (0, 1)), ("b", 1, (1, 2))])), Problem(chips, work))
    wide, narrow = (stage_bytes(work, completed, 0, s, pool.precision) for s, pool in enumerate(chips.pools))
    assert narrow.activations < wide.activations
    text_bytes = 16 * 128
    assert (wide.messages - text_bytes, narrow.messages - text_bytes) == (2_000_000, 1_000_000)
