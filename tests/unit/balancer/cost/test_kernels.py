"""Times of chips whose kernels' shapes make a difference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backends.options import EmulateOptions
from balancer.cost.ideal import ideal_tokens_per_s
from balancer.cost.kernels import FITTED
from balancer.cost.stage_times import stage_unit_time
from balancer.cost.times import datasheet_times, model_time
from balancer.cost.topology import Topology
from balancer.plan.plan import StagePlan
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.words.pool import Pool

MODEL = Dimensions(layers=2, hidden=2048, heads=16, kv_heads=16, ffn=5504, vocab=32000)
WORK = architecture(MODEL).workload(2048, 64, "bfloat16")
MLP = next(number for number, unit in enumerate(WORK.units) if unit.kind == "mlp")


def chips(chip="A800-80G", **fields) -> Topology:
    return Topology((replace(Pool("a", "cuda", chip, 16, 8).planned("bfloat16"), **fields),))


def flop_rate(topology: Topology, tp: int, micro_batch: int) -> float:
    """Of a chip in an MLP's forward, over what its sheet says a large product reaches."""
    pool, unit = topology.pools[0], WORK.units[MLP]
    time = datasheet_times(topology, WORK).lookup("a", tp, "mlp", micro_batch)
    return unit.forward_flops / tp / (time.forward_s - time.collectives_s) / pool.matrix_flops_per_s


def test_efficiency_saturates_as_products_grow():
    narrow = [flop_rate(chips(), 1, size) for size in (1, 2, 4, 8, 16)]
    assert narrow == sorted(narrow)
    assert narrow[-1] / narrow[-2] < narrow[1] / narrow[0] or narrow[0] == narrow[-1]
    assert all(rate < FITTED.products for rate in narrow)
    split = [flop_rate(chips(), tp, 1) for tp in (1, 2, 4, 8)]
    assert split == sorted(split, reverse=True)
    assert split[-1] < 0.7 * split[0]


def test_no_micro_batch_is_faster_than_the_ideal():
    topology, times = chips(), datasheet_times(chips(), WORK)
    ideal_s = WORK.seq_len / ideal_tokens_per_s(topology, WORK, times) * topology.pools[0].count
    assert all(model_time(times, WORK, "a", 1, size) >= ideal_s for size in (1, 4, 16, 64))


def test_a_small_micro_batch_waits_for_launches():
    slow = replace(chips(), kernels=FITTED._replace(launch_s=1.0))
    one, four = (datasheet_times(slow, WORK).lookup("a", 1, "mlp", size) for size in (1, 4))
    assert (one.forward_s, one.backward_s) == pytest.approx((1.0, 2.0))
    assert four.forward_s == pytest.approx(0.25)


def test_an_emulated_pool_keeps_the_flat_pace_of_its_sheet():
    real, emulated = chips().pools[0], Pool("a", "cuda", "A800-80G", 16, 8, EmulateOptions()).planned("bfloat16")
    assert real.shaped
    assert not emulated.shaped
    unit = WORK.units[MLP]
    for size in (1, 8):
        time = datasheet_times(Topology((emulated,)), WORK).lookup("a", 1, "mlp", size)
        assert time.forward_s == unit.forward_flops / emulated.flops_per_s


def test_strategies_have_their_price_by_kernels():
    topology, times = chips(), datasheet_times(chips(), WORK)
    plain = StagePlan(pool="a", tp=4, units=((0, len(WORK.units)),))

    def time(**fields):
        return stage_unit_time(times, topology, WORK, plain.model_copy(update=fields), MLP, 8)

    assert time(sequence_parallel=True).forward_s < time().forward_s
    assert time(tp_slices=4).collectives_s == pytest.approx(time().collectives_s / 4)
    assert time().forward_s - time(tp_slices=4).forward_s == pytest.approx(0.75 * time().collectives_s)
    assert time(recompute="full").backward_s > 1.2 * time().backward_s


def test_what_leaves_a_host_goes_over_its_fabric():
    near = chips(fabric_bytes_per_s=5e9)
    pool = near.pools[0]
    assert near.inside_bytes_per_s(pool, hosts=1) == FITTED.ring * pool.chip.interconnect_bytes_per_s
    assert near.inside_bytes_per_s(pool, hosts=2) == 5e9
    assert near.inside_bytes_per_s(pool, hosts=2, beside=4) == 4 * 5e9
    assert near.inside_bytes_per_s(pool, hosts=2, beside=10**6) == near.inside_bytes_per_s(pool, hosts=1)
    wide = datasheet_times(near, WORK).lookup("a", 16, "mlp")
    assert wide.collectives_s > datasheet_times(chips(), WORK).lookup("a", 16, "mlp").collectives_s
