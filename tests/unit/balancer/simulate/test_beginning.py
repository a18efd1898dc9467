"""How a step ends and the next one begins: updates on chips and in host memory, what leaves for them and comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from tests.unit.balancer.cases import plan, pool, topology, unit, workload
from tests.unit.balancer.simulate.predicted import predict


def hosting(bytes_per_s: float, count: int = 1, **chip: float):
    """A pool whose chips have a link to their host of this rate."""
    made = pool("a", count)
    return replace(made, chip=replace(made.chip, host_bytes_per_s=bytes_per_s, **chip))


def two_units(bytes_per_s: float, **chips: int):
    """Of 4 s forward and 8 s backward, on one chip with a link to its host of this rate, which updates them."""
    stage = StagePlan(pool="a", units=((0, 2),), optimizer="host")
    work = workload(2, batch=1, gflops=4000, parameters=1_000_000)
    written = Plan(pipelines=(PipelinePlan(share=1, stages=(stage,)),))
    return predict(replace(topology(hosting(bytes_per_s)), **chips), work, written)


def test_an_optimizer_in_host_memory_updates_beside_the_next_forward():
    """Two units of 4 s forward and 8 s backward, each updated in 7 s and back in 1 s; sums leave within 1 s."""
    found = two_units(4e6)
    assert found.compute_s == pytest.approx(24)
    first_s, second_s, leaving_s = 7 + 1, 14 + 1, 1
    assert first_s + 4 < second_s
    assert found.step_s == pytest.approx(second_s + 4 + 16 + leaving_s)


def test_sums_that_leave_more_slowly_than_they_are_made_queue_for_host_memory():
    """Two units of 12 s, whose sums need 16 s each: the second unit's leave behind the first one's."""
    found = two_units(0.25e6)
    made_s, update_s, back_s = 8 + 8, 28e6 / 0.25e6, 4e6 / 0.25e6
    late_s = 2 * update_s + back_s - 4
    assert found.step_s == pytest.approx(max(8 + made_s / 2 + 2 * 16, 24) + late_s)


def test_small_units_are_updated_in_host_memory_and_come_back_at_once():
    assert two_units(4e6, bucket_bytes=8_000_000).step_s == pytest.approx(2 * (7 + 1) + 24 + 1)


def updating(name, seconds):
    """A chip that updates a million parameters in so long."""
    made = pool(name, 1)
    return replace(made, chip=replace(made.chip, memory_bytes_per_s=28e6 / seconds))


def test_a_longer_update_behind_the_first_stage_s_first_forward_is_hidden():
    """Of b, which updates for 9 s, while the first activation comes after 1 + 10 s."""
    chips, work = topology(updating("a", 1), updating("b", 9)), workload(2, 2, gflops=10_000, parameters=1_000_000)
    found = predict(chips, work, plan((2, [("a", 1, (0, 1)), ("b", 1, (1, 2))])))
    assert found.step_s == pytest.approx(found.compute_s + 1)


def test_nothing_is_sent_to_a_stage_that_updates():
    """b is through after 9 s, asks for the activation, which waits since 2 s, and has it a round trip and 4 s later."""
    chips = topology(updating("a", 1), updating("b", 9), bytes_per_s=1e6, latency_s=0.5)
    work = workload(2, 1, gflops=1000, boundary=4_000_000, parameters=1_000_000)
    found = predict(chips, work, plan((1, [("a", 1, (0, 1)), ("b", 1, (1, 2))])))
    late_s, norm_s = 9 + 2 * 0.5 + 4 - (1 + 4.5), 2 * 0.5
    assert found.step_s == pytest.approx(found.compute_s + late_s + norm_s)


def test_sums_that_copies_add_up_leave_for_host_memory_in_full():
    """Of 80 million parameters each of two pipelines owns half: 160 MB at 0.1 GB/s once all have added theirs."""
    there = hosting(1e8, 2, memory_bytes_per_s=1e15)
    chips, work = topology(there, bytes_per_s=1e15), workload(8, batch=2, gflops=1, parameters=10_000_000)
    stages = [StagePlan(pool="a", units=((0, 8),), optimizer="host") for _ in range(2)]
    found = predict(chips, work, Plan(pipelines=tuple(PipelinePlan(share=1, stages=(stage,)) for stage in stages)))
    assert all(len(stage.owned_units()) == 4 for _, stage in found.plan.stages())
    out_s, update_s, last_back_s = 1.6, 28 * 40e6 / 1e8, 0.4
    assert found.sync_s == pytest.approx(out_s + update_s + last_back_s, rel=0.02)


def test_sums_of_a_stage_alone_leave_while_those_that_copies_add_up_still_come():
    """Two units of 4 s forward and 8 s backward, whose sums need 16 s each: their queue ends at 48 s. The head's share
    of the embedding's gradients comes over a slow link, from 8 s to 88 s, and then they leave, too."""
    there = hosting(0.25e6)
    chips, quick, own = topology(there, pool("b", 1), pool("c", 1)), unit("quick", 1e-6), unit("own", 4000)
    links = (replace(link, bytes_per_s=0.05e6) if set(link.between) == {"a", "c"} else link for link in chips.links)
    work = workload([quick, own, own, quick, quick], 1, tied=((0, 4),))
    stages = (StagePlan(pool=name, units=(units,)) for name, units in zip("abc", ((0, 3), (3, 4), (4, 5)), strict=True))
    stages = tuple(stage.model_copy(update={"optimizer": "host"}) if stage.pool == "a" else stage for stage in stages)
    written = Plan(pipelines=(PipelinePlan(share=1, stages=stages),))
    found = predict(replace(chips, links=tuple(links)), work, written)
    assert found.compute_s == pytest.approx(8 + 16)
    assert found.step_s - found.late_s[0] == pytest.approx(88 + 16)


def _second_stage_in_host_memory(pipelines: int) -> float:
    """What parameters that come back add to a step whose second stage updates its three units there, in 7 s each."""
    there = hosting(4e6, 2 * pipelines, memory_bytes_per_s=1e15)
    chips, work = topology(there, bytes_per_s=1e15), workload(6, batch=pipelines, gflops=4000, parameters=1_000_000)
    stages = StagePlan(pool="a", units=((0, 3),)), StagePlan(pool="a", units=((3, 6),), optimizer="host")
    found = predict(chips, work, Plan(pipelines=(PipelinePlan(share=1, stages=stages),) * pipelines))
    return found.sync_s


def test_a_later_stage_begins_unit_by_unit_only_where_nobody_else_waits():
    """It may begin after 12 s; what is there after 22 s is the third unit that it comes to. Of two copies one owns two
    units, and takes its activation when it has given both, after 15 s."""
    assert _second_stage_in_host_memory(1) == pytest.approx(22 - (12 + 2 * 4))
    assert _second_stage_in_host_memory(2) == pytest.approx(15 - 12)
