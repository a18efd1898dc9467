"""How far a step may lie from its prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.problem import Problem
from balancer.simulate.band import Noise, band
from balancer.simulate.replay import Replay
from balancer.simulate.simulate import simulate
from tests.unit.balancer.cases import pipelines, plan, pool, topology, workload

SCHEDULES = st.sampled_from(["1f1b", "gpipe", "zero-bubble"])
"""Of one chunk a stage."""


def predict(chips, work, written, schedule="1f1b"):
    asked = Problem(chips, work, datasheet_times(chips, work))
    return simulate(complete(written.model_copy(update={"schedule": schedule}), asked), asked, 3.0)


def as_told(_):
    return np.ones((1, 1))


def two_stages(pipelines=1):
    chips = topology(pool("a", 4), pool("b", 4))
    share = 16 // pipelines
    written = plan(*[(share, [("a", 1, (0, 4)), ("b", 1, (4, 8))])] * pipelines)
    return predict(chips, workload(8), written)


@given(case=pipelines(), name=SCHEDULES)
def test_a_replay_without_chance_is_the_prediction(case, name):
    prediction = predict(*case, name)
    assert Replay(prediction, 0).ends(as_told, as_told) == pytest.approx([prediction.compute_s])


@given(case=pipelines(), name=SCHEDULES, ratio=st.floats(0.5, 2.0))
def test_chips_and_links_that_are_all_as_much_slower_are_a_slower_prediction(case, name, ratio):
    """Links keep their speed: slower chips take no longer than by the ratio, faster ones no less."""
    prediction = predict(*case, name)

    def slower(_):
        return np.full((1, 1), ratio)

    (end,) = Replay(prediction, 0).ends(slower, slower)
    update_s = max(end - start for spans in prediction.spans.values() for _, start, end in spans[-1:])
    low, high = sorted((prediction.compute_s, ratio * prediction.compute_s + (ratio - 1) * update_s))
    assert low * (1 - 1e-9) <= end <= high * (1 + 1e-9)


def test_a_band_is_as_wide_as_chips_are_unsteady_and_unknown():
    prediction = two_stages()
    quiet, unsteady, unknown = (
        band(prediction, dict.fromkeys("ab", noise)) for noise in (Noise(0, 0, 0), Noise(0.2, 0, 0), Noise(0, 0.1, 0))
    )
    assert quiet.mean_s == pytest.approx(prediction.step_s, rel=0.002)
    assert quiet.high_s - quiet.low_s < 0.02 * prediction.step_s
    assert unsteady.mean_s > 1.02 * prediction.step_s, "stages wait for whoever is late"
    assert unknown.high_s - unknown.low_s > 0.15 * prediction.step_s
    assert unknown.high_s - unknown.low_s < 0.4 * prediction.step_s


def test_the_chips_of_a_stage_alone_end_when_the_last_of_them_does():
    """Of four sums of 32 actions the largest lies 1.03 deviations above the mean; a log-normal action's does, too."""
    work = workload(6, 16, gflops=300)
    prediction = predict(topology(pool("a", 4)), work, plan((16, [("a", 4, (0, 6))])))
    (spans,) = prediction.spans.values()
    seconds = np.array([end - start for _, start, end in spans[:-1]])
    expected = 0.1 * 1.03 * np.sqrt((seconds**2).sum()) / seconds.sum() + 0.1**2 / 2
    found = band(prediction, {"a": Noise(0.1, 0, 0)}, steps=100)
    assert found.mean_s / prediction.step_s - 1 == pytest.approx(expected, rel=0.1)


def test_the_chips_of_a_stage_wait_for_each_other_where_a_message_comes():
    """In every micro-batch of such a pipeline, and once in a step where there is none."""
    late = {}
    for name, stages in (
        ("alone", [("a", 4, (0, 6))]),
        ("pipeline", [("a", 4, (0, 3)), ("b", 4, (3, 6))]),
        ("pipeline of single chips", [("a", 1, (0, 3)), ("b", 1, (3, 6))]),
    ):
        prediction = predict(topology(pool("a", 4), pool("b", 4)), workload(6, 32), plan((32, stages)))
        late[name] = band(prediction, dict.fromkeys("ab", Noise(0.1, 0, 0))).mean_s / prediction.step_s - 1
    assert late["alone"] < late["pipeline"] - 0.02
    assert late["pipeline of single chips"] < late["pipeline"] - 0.02


def test_updates_differ_too():
    slow = pool("a", 1)
    chips = topology(replace(slow, chip=replace(slow.chip, memory_bytes_per_s=28e6)))
    work = workload(1, 1, gflops=1, parameters=10_000_000)
    prediction = predict(chips, work, plan((1, [("a", 1, (0, 1))])))
    assert prediction.compute_s < 0.01 * prediction.step_s
    for unsteady_or_unknown in (Noise(0.1, 0, 0), Noise(0, 0, 0.1)):
        found = band(prediction, {"a": unsteady_or_unknown})
        assert found.high_s - found.low_s > 0.25 * prediction.step_s
    known = band(prediction, {"a": Noise(0, 0.1, 0)})
    assert known.high_s - known.low_s < 0.12 * prediction.step_s, "whatever is known of forwards and backwards"


def test_what_is_added_to_the_computing_is_known_less_well_than_that():
    """Of 9 in 10 the last one is 1.64 standard deviations away."""
    chips, known = topology(pool("a", 2), bytes_per_s=1e6), {"a": Noise(0, 0, 0)}
    slow = replace(chips.pools[0], chip=replace(chips.pools[0].chip, interconnect_bytes_per_s=2e6))
    written = plan(*[(8, [("a", 1, (0, 8))])] * 2)
    for asked in (chips, replace(chips, pools=(slow,))):
        prediction = predict(asked, workload(8), written)
        found = band(prediction, known)
        missed_s = 1.64 * np.hypot(0.004 * prediction.step_s, 0.03 * prediction.sync_s)
        assert found.high_s - prediction.step_s == pytest.approx(missed_s, rel=0.2)
    assert prediction.sync_s > 0.1 * prediction.step_s


def test_the_mean_of_many_steps_lies_closer_than_one_step():
    noise = dict.fromkeys("ab", Noise(0.3, 0, 0))
    one, ten = (band(two_stages(), noise, steps) for steps in (1, 10))
    assert ten.high_s - ten.low_s < 0.6 * (one.high_s - one.low_s)


def test_a_step_of_many_pipelines_is_that_of_the_last():
    noise = dict.fromkeys("ab", Noise(0.3, 0, 0))
    one, four = (two_stages(count) for count in (1, 4))
    late = [band(each, noise).mean_s / each.step_s for each in (one, four)]
    assert late[1] > late[0]


def test_the_same_question_has_the_same_answer():
    noise = dict.fromkeys("ab", Noise(0.1, 0.1, 0))
    assert band(two_stages(), noise) == band(two_stages(), noise)


def test_of_a_pool_that_nobody_measured_there_is_no_band():
    assert band(two_stages(), {"a": Noise(0.1, 0.1, 0)}) is None
