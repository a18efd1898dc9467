"""Unit times: modelled, measured, and both."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from balancer.cost.ideal import ideal_tokens_per_s
from balancer.cost.stage_times import stage_unit_time
from balancer.cost.times import Times, UnitTime, datasheet_times, transfer_s
from balancer.cost.topology import LinkSpec
from balancer.errors import CostError, PlanError
from balancer.options import BalanceOptions
from balancer.plan.plan import StagePlan
from balancer.rebalance.decision import SlowedTimes
from balancer.schedule.action import Kind
from tests.unit.balancer.cases import halved, pool, topology, unit, workload

POOLS = topology(pool("a", 2, interconnect=1e7), pool("b", 2, 2.0))
WORK = workload([unit("x", 1000, boundary=1_000_000), unit("y", 500)])


def test_datasheet_times_count_flops_and_collectives():
    times = datasheet_times(POOLS, WORK)
    assert times.lookup("a", 1, "x") == pytest.approx((1.0, 2.0, 0.8, 0.0, 0.0))
    assert times.lookup("b", 1, "x") == pytest.approx((0.5, 1.0, 0.4, 0.0, 0.0))
    ring_s = 2 * (1 / 2) * 1e6 / 1e7
    assert times.lookup("a", 2, "x") == pytest.approx((0.5 + ring_s, 1.0, 0.4, ring_s, ring_s))


def test_a_whole_backward_hides_collectives_behind_its_weight_gradients_and_half_of_one_does_not():
    ring_s, slow_s = 0.1, 10.0
    quick = datasheet_times(POOLS, WORK).lookup("a", 2, "x")
    assert [quick.of(kind) for kind in (Kind.B, Kind.I, Kind.W)] == pytest.approx([1.0, 0.6 + ring_s, 0.4])
    slow = datasheet_times(topology(pool("a", 2, interconnect=1e5)), WORK).lookup("a", 2, "x")
    assert [slow.of(kind) for kind in (Kind.B, Kind.I)] == pytest.approx([0.6 + slow_s, 0.6 + slow_s])


def test_measurements_win_and_scale_what_was_not_measured():
    rows = [{"pool": "a", "tp": 1, "kind": "x", "forward_s": s, "backward_s": 2 * s} for s in (1.9, 2.0, 9.0)]
    times = Times.from_measurements(rows, otherwise=datasheet_times(POOLS, WORK))
    assert times.lookup("a", 1, "x") == pytest.approx((2.0, 4.0, 1.6, 0.0, 0.0))
    assert times.lookup("a", 1, "y") == pytest.approx((1.0, 2.0, 0.8, 0.0, 0.0))
    assert times.lookup("b", 1, "y") == pytest.approx((0.25, 0.5, 0.2, 0.0, 0.0))


def test_measurements_are_divided_as_data_sheets_say():
    modelled = datasheet_times(POOLS, WORK)
    row = {"pool": "a", "tp": 2, "kind": "x", "forward_s": 1.2, "backward_s": 3.0}
    measured = Times.from_measurements([row], otherwise=modelled).lookup("a", 2, "x")
    ring_s = 0.1
    assert measured == pytest.approx((1.2, 3.0, 3 * 0.4, 3 * ring_s, 2 * ring_s))


def test_a_size_of_micro_batch_that_was_not_measured_is_the_nearest_one_grown_as_the_model_sees():
    rows = [
        {"pool": "a", "tp": 1, "kind": "x", "forward_s": s, "backward_s": 2 * s, "micro_batch": size}
        for size, s in ((1, 3.0), (4, 2.0))
    ]
    alone = Times.from_measurements(rows)
    assert [alone.lookup("a", 1, "x", size).forward_s for size in (1, 2, 4, 16)] == [3.0, 3.0, 2.0, 2.0]

    def modelled(pool: str, tp: int, kind: str, micro_batch: int) -> UnitTime:
        return UnitTime(1 + 1 / micro_batch, 2 + 2 / micro_batch)

    beside = Times.from_measurements(rows, otherwise=Times({}, modelled))
    assert [beside.lookup("a", 1, "x", size).forward_s for size in (1, 2, 4, 16)] == pytest.approx(
        [3.0, 3.0 * 1.5 / 2, 2.0, 2.0 * (17 / 16) / 1.25]
    )
    assert beside.lookup("a", 1, "y", 4).forward_s == pytest.approx(1.25 * 5 / 3.25)


def test_what_a_profile_measured_of_a_backward_is_what_a_stage_takes():
    row = {"pool": "a", "tp": 1, "kind": "x", "forward_s": 1.0, "backward_s": 2.0, "micro_batch": 2}
    row |= {"input_s": 1.3, "weight_s": 0.9, "selective_s": 2.1, "full_s": 2.9}
    less = replace(WORK.units[0], activation_bytes=0, remade_flops=500e9)
    work = workload([replace(WORK.units[0], recomputed={"full": less, "selective": less}), WORK.units[1]])
    times = Times.from_measurements([row], otherwise=datasheet_times(POOLS, work))
    plain = times.lookup("a", 1, "x", 2)
    assert [plain.of(kind) for kind in (Kind.F, Kind.B, Kind.I, Kind.W)] == pytest.approx([1.0, 2.0, 1.3, 0.9])

    def backward_s(pool: str, unit: int, recompute: str, asked: Times = times) -> float:
        stage = StagePlan(pool=pool, tp=1, units=((0, 2),), recompute=recompute)
        return stage_unit_time(asked, POOLS, work, stage, unit, 2).backward_s

    assert [backward_s("a", 0, way) for way in ("none", "selective", "full")] == pytest.approx([2.0, 2.1, 2.9])
    assert backward_s("b", 0, "full") == pytest.approx(1.0 + 0.25), "as expected where nobody measured it"
    assert backward_s("a", 0, "full", SlowedTimes(times, {("a", 1): 2.0})) == pytest.approx(5.8)


def test_what_nobody_measured_is_an_error():
    times = Times.from_measurements([{"pool": "a", "tp": 1, "kind": "x", "forward_s": 1, "backward_s": 2}])
    assert not times.knows("a", 1, WORK)
    with pytest.raises(CostError) as error:
        times.lookup("a", 2, "x")
    assert error.value.value == ["a", 2, "x"]
    with pytest.raises(CostError, match="pool a"):
        ideal_tokens_per_s(POOLS, WORK, times)


def test_the_ideal_sums_the_pools_at_their_best_tp():
    per_s = 2 / (3 * 1.5) + 2 / (3 * 0.75)
    assert ideal_tokens_per_s(POOLS, WORK, datasheet_times(POOLS, WORK)) == pytest.approx(WORK.seq_len * per_s)


def test_a_hop_is_latency_and_bytes_over_rate():
    assert transfer_s(LinkSpec(("a", "b"), 1e6, 0.5), 2_000_000) == pytest.approx(2.5)


def test_topology_names_what_is_missing():
    with pytest.raises(PlanError, match="did you mean"):
        topology(pool("nvidia"), pool("ascend")).pool("nvidai")
    with pytest.raises(PlanError) as error:
        topology(pool("a"), pool("b")).link("a", "c")
    assert error.value.key == "links"
    assert POOLS.link("a", "a").bytes_per_s == 1e7


def test_tp_sizes_divide_the_pool_and_fit_a_host():
    assert pool("a", 8).tp_sizes() == (1, 2, 4, 8)
    assert pool("a", 8, hosts=4).tp_sizes() == (1, 2)
    assert pool("a", 6).tp_sizes() == (1, 2)
    assert pool("a", 8, tp=4).tp_sizes() == (4,)


def test_tp_groups_that_hosts_have_room_for():
    assert [pool("a", 6, hosts=2).tp_groups(tp) for tp in (1, 2, 3, 4, 6)] == [6, 2, 2, 1, 1]
    assert [replace(pool("a", 8), count=6, chips_per_host=4).tp_groups(tp) for tp in (1, 2, 4)] == [6, 3, 1]


def test_pipelines_by_hand_mean_mode_manual():
    section = {"pipelines": [{"share": 1, "stages": [{"pool": "a", "units": [0, 1]}]}]}
    options = BalanceOptions.model_validate(section)
    assert options.mode == "manual"
    assert BalanceOptions.model_validate(options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"schedule": "1f1"}, "did you mean '1f1b'"),
        ({"mode": "manual"}, "write at least one"),
        ({"mode": "auto", "pipelines": [{"share": 1, "stages": [{"pool": "a", "units": [0, 1]}]}]}, "leave them out"),
        ({"mods": "auto"}, "extra"),
    ],
)
def test_options_that_contradict_themselves(section, message):
    with pytest.raises(ValidationError, match=message):
        BalanceOptions.model_validate(section)


def test_collectives_carry_the_pool_s_precision():
    pools = (pool("a", 2, interconnect=1e6), pool("b", 2, interconnect=1e6, precision="float16"))
    work = halved(workload(1, 1, gflops=0.0))
    times = datasheet_times(topology(*pools), work)
    wide, narrow = (times.lookup(name, 2, "attention") for name in "ab")
    assert wide.forward_s == 2 * narrow.forward_s > 0
