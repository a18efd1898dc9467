"""What completion fills in, and every kind of plan that it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from balancer.completion.completion import complete
from balancer.cost.topology import Topology
from balancer.errors import PlanError
from balancer.memory.need import memory_need
from balancer.plan.plan import PipelinePlan
from balancer.problem import Problem
from tests.unit.balancer.cases import pipelines, plan, pool, topology, unit, workload

POOLS = topology(pool("fast", 4), pool("slow", 4, hosts=2))
WORK = workload(8, batch=16)
GOOD = [("fast", 2, (0, 4)), ("slow", 2, (4, 8))]


def changed(written, stage=None, **fields):
    """The plan with fields of its first pipeline, or of one of that one's stages, replaced without validation."""
    first = written.pipelines[0]
    if stage is not None:
        stages = [s.model_copy(update=fields) if i == stage else s for i, s in enumerate(first.stages)]
        fields = {"stages": tuple(stages)}
    return written.model_copy(update={"pipelines": (first.model_copy(update=fields), *written.pipelines[1:])})


def refusal(written, pools=POOLS, work=WORK, **arguments) -> PlanError:
    with pytest.raises(PlanError) as error:
        complete(written, Problem(pools, work, **arguments))
    for part in (error.value.key, error.value.rule, error.value.remedy):
        assert part
    return error.value


@given(case=pipelines())
def test_completing_again_changes_nothing(case):
    pools, work, written = case
    completed = complete(written, Problem(pools, work))
    assert complete(completed, Problem(pools, work)) == completed


def test_a_fault_behind_replicas_is_told_of_the_pipeline_that_was_written():
    small = topology(pool("fast", 4), pool("slow", 4, gib=0.001))
    written = changed(plan((4, [("fast", 1, (0, 8))]), (8, [("slow", 1, (0, 8))])), replicas=2)
    error = refusal(written, small)
    assert error.key == "pipelines[1].stages[0]"
    assert "a chip of slow has" in error.rule


def test_replicas_are_written_out_with_their_share_each():
    written = plan((8, [("fast", 1, (0, 4)), ("slow", 1, (4, 8))]))
    completed = complete(changed(written, replicas=2), Problem(POOLS, WORK))
    assert [p.share for p in completed.pipelines] == [8, 8]
    assert [s.chips for p in completed.pipelines for s in p.stages] == [(0,), (0,), (1,), (1,)]


def test_rows_of_the_stream_are_cut_over_a_group_that_divides_them():
    written, rows = plan((16, GOOD)), {"sequence_parallel": True}
    assert complete(changed(written, 1, **rows), Problem(POOLS, WORK)).pipelines[0].stages[1].sequence_parallel
    alone = refusal(changed(plan((16, [("fast", 1, (0, 8))])), 0, **rows))
    assert alone.key == "pipelines[0].stages[0].sequence_parallel"
    assert "tp 1 is one chip" in alone.rule
    uneven = refusal(changed(written, 1, **rows), work=replace(WORK, seq_len=127))
    assert uneven.key == "pipelines[0].stages[1].sequence_parallel"
    assert "does not divide the 127" in uneven.rule
    assert "a multiple of 2" in uneven.remedy


@pytest.mark.parametrize(("stages", "slices"), [(GOOD, 65), ([("fast", 1, (0, 8))], 2)])
def test_slices_have_tokens_of_every_chip_of_a_group(stages, slices):
    error = refusal(changed(plan((16, stages)), 0, tp_slices=slices))
    assert (error.key, error.value) == ("pipelines[0].stages[0].tp_slices", slices)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tp_slices", 2),
        ("sequence_parallel", True),
    ],
)
def test_what_a_model_does_not_know_is_refused_with_its_reason(name, value):
    work = replace(WORK, refused=dict.fromkeys(("tp_slices", "sequence_parallel"), "it has no such thing"))
    error = refusal(changed(plan((16, GOOD)), 0, **{name: value}), work=work)
    assert (error.key, error.rule) == (f"pipelines[0].stages[0].{name}", "it has no such thing")


@pytest.mark.parametrize(("stages", "experts"), [(GOOD, 0), (GOOD, 1), ([("fast", 1, (0, 8))], 8)])
def test_experts_are_spread_over_no_more_chips_than_there_are(stages, experts):
    asked = changed(plan((16, stages)), 0, experts="spread")
    with pytest.raises(PlanError) as caught:
        complete(asked, Problem(POOLS, replace(WORK, experts=experts)))
    assert (caught.value.key, caught.value.value) == ("pipelines[0].stages[0].experts", "spread")
    assert "leave it out" in caught.value.remedy


def test_warmups_are_those_of_1f1b_and_at_most_the_micro_batches():
    stages = [("fast", 1, (0, 2)), ("fast", 1, (2, 4)), ("slow", 1, (4, 6)), ("slow", 1, (6, 8))]
    assert complete(plan((16, stages)), Problem(POOLS, WORK)).pipelines[0].warmups() == (4, 3, 2, 1)
    few = complete(plan((2, stages)), Problem(POOLS, workload(8, batch=2)))
    assert few.pipelines[0].warmups() == (2, 2, 2, 1)


def test_a_tp_group_stays_on_a_host_and_larger_ones_go_first():
    stages = [("slow", 1, (0, 2)), ("slow", 2, (2, 4)), ("fast", 4, (4, 8))]
    completed = complete(plan((16, stages)), Problem(POOLS, WORK))
    assert [s.chips for s in completed.pipelines[0].stages] == [(2,), (0, 1), (0, 1, 2, 3)]


def test_a_tp_group_larger_than_a_host_takes_whole_hosts_where_its_pool_says_so():
    written = plan((16, [("slow", 4, (0, 8))]))
    completed = complete(written, Problem(topology(pool("slow", 4, hosts=2, tp=4)), WORK))
    assert completed.pipelines[0].stages[0].chips == (0, 1, 2, 3)
    error = refusal(written)
    assert (error.key, error.remedy) == ("pipelines[0].stages[0].tp", "use at most tp 2")


def test_chips_by_hand_are_kept_and_the_rest_goes_around_them():
    written = changed(plan((16, [("slow", 1, (0, 4)), ("slow", 2, (4, 8))])), stage=0, chips=(0,))
    assert [s.chips for s in complete(written, Problem(POOLS, WORK)).pipelines[0].stages] == [(0,), (2, 3)]


def test_the_good_plan_is_legal():
    complete(plan((16, GOOD)), Problem(POOLS, WORK))


@pytest.mark.parametrize(
    ("stages", "key", "rule", "remedy"),
    [
        ([("fsat", 1, (0, 8))], "pipelines[0].stages[0].pool", "no such pool", "'fast'"),
        ([("fast", 8, (0, 8))], "pipelines[0].stages[0].tp", "has 4 chips", "at most"),
        ([("fast", 1, (0, 3)), ("slow", 1, (4, 8))], "pipelines[0].stages[1].units", "in no stage", "begin at 3"),
        ([("fast", 1, (0, 5)), ("slow", 1, (4, 8))], "pipelines[0].stages[1].units", "in two stages", "begin at 5"),
        ([("fast", 1, (0, 7))], "pipelines[0].stages[0].units", "unit 7 is in", "end at 8"),
        ([("fast", 1, (0, 9))], "pipelines[0].stages[0].units", "0 <= a < b <= 8", "correct"),
        ([("fast", 1, (0, 4), (4, 4)), ("slow", 1, (4, 8))], "pipelines[0].stages[0].units", "a < b", "correct"),
        ([("fast", 1, (0, 8)), ("slow", 1)], "pipelines[0].stages[1].units", "at least one chunk", "leave it out"),
        ([("fast", 4, (0, 4)), ("fast", 1, (4, 8))], "pools.fast.count", "need 5", "fewer stages"),
    ],
)
def test_illegal_stages(stages, key, rule, remedy):
    error = refusal(plan((16, stages)))
    assert error.key == key
    assert rule in error.rule
    assert remedy in error.remedy


def test_tp_groups_that_no_host_has_room_for():
    pools = topology(pool("odd", 6, hosts=2))
    error = refusal(plan((16, [("odd", 2, (0, 2)), ("odd", 2, (2, 4)), ("odd", 2, (4, 8))])), pools)
    assert (error.key, error.value) == ("pipelines[0].stages[2].tp", 2)
    assert "3 to a host" in error.rule


def test_an_illegal_cut():
    error = refusal(plan((16, [("fast", 1, (0, 3)), ("slow", 1, (3, 8))])), work=workload(8, cuts=(0, 1, 5)))
    assert (error.key, error.value) == ("pipelines[0].stages[1].units", [3, 8])
    assert "before unit 3" in error.rule
    assert error.remedy in ("cut before 1", "cut before 5")


def test_shares_that_miss_the_global_batch():
    error = refusal(plan((10, GOOD), (5, [("slow", 1, (0, 8))])))
    assert (error.key, error.value) == ("pipelines.share", [10, 5])
    assert "16, not 15" in error.rule
    assert "1 more" in error.remedy


def test_a_share_that_is_not_whole_micro_batches():
    error = refusal(changed(plan((16, GOOD)), micro_batch=3))
    assert (error.key, error.value) == ("pipelines[0].share", 16)


def test_a_tp_that_the_pool_or_the_model_forbids():
    constrained = Topology((pool("fast", 4, tp=4), POOLS.pools[1]), POOLS.links)
    error = refusal(plan((16, GOOD)), constrained)
    assert (error.key, error.value, error.rule) == ("pipelines[0].stages[0].tp", 2, "pools.fast.tp is 4")
    error = refusal(plan((16, GOOD)), legal_tp=lambda tp: "3 heads cannot be split in 2" if tp == 2 else None)
    assert "3 heads" in error.rule


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"chips": (0,)}, "2 different chips"),
        ({"chips": (0, 0)}, "2 different chips"),
        ({"chips": (3, 4)}, "chips 0 to 3"),
        ({"warmup": 1}, "at most that of the stage before (1)"),
        ({"owns": ((0, 3),)}, "has exactly one owner"),
        ({"owns": ((0, 8),)}, "owns only units that it holds"),
    ],
)
def test_illegal_details(fields, rule):
    written = changed(plan((16, GOOD)), stage=1, warmup=2)
    assert rule in refusal(changed(written, stage=0, **fields)).rule


def test_chips_used_twice_or_on_two_hosts():
    twice = changed(plan((16, [("slow", 2, (0, 4)), ("slow", 2, (4, 8))])), stage=0, chips=(0, 1))
    assert "serves one stage" in refusal(changed(twice, stage=1, chips=(1, 2))).rule
    assert "stays on one host" in refusal(changed(twice, stage=0, chips=(1, 2))).rule


def test_replicas_cannot_share_chips():
    written = changed(plan((8, [("fast", 2, (0, 8))])), stage=0, chips=(0, 1))
    assert refusal(changed(written, replicas=2)).key == "pipelines[0].replicas"


def test_after_replicas_a_pipeline_is_still_named_as_it_was_written():
    written = plan((4, [("fast", 1, (0, 8))]), (8, [("slwo", 1, (0, 8))]))
    assert refusal(changed(written, replicas=2)).key == "pipelines[1].stages[0].pool"
    crowded = changed(plan((4, [("fast", 2, (0, 8))]), (4, [("slow", 1, (0, 8))])), replicas=3)
    assert refusal(crowded).key == "pools.fast.count"


def test_an_unknown_schedule():
    error = refusal(plan((16, GOOD), schedule="1f1"))
    assert (error.key, error.value) == ("schedule", "1f1")


def test_memory_that_does_not_fit():
    small = topology(pool("fast", 4, gib=0.02), pool("slow", 4))
    error = refusal(plan((16, [("fast", 1, (0, 4)), ("slow", 1, (4, 8))])), small)
    assert error.key == "pipelines[0].stages[0]"
    assert "a chip of fast has 20.5 MiB" in error.rule


def test_a_pipeline_needs_a_stage():
    with pytest.raises(ValueError, match="at least 1 item"):
        PipelinePlan(share=1, stages=())


def test_owners_are_spread_by_what_they_own():
    """Attention and MLP in turn, of which one has thrice the other's parameters: turns would give one pipeline all."""
    units = [unit("attention", parameters=1_000), unit("mlp", parameters=3_000)] * 4
    completed = complete(plan(*[(8, [("fast", 1, (0, 8))])] * 2), Problem(POOLS, workload(units, batch=16)))
    assert owned_parameters(completed, units) == [8_000, 8_000]


def owned_parameters(completed, units):
    """By pipeline, which has one stage."""
    return [sum(units[u].parameters for u in p.stages[0].owned_units()) for p in completed.pipelines]


def updating(pools, **rates):
    """The pools, whose memories have so many bytes per second."""
    changed = [replace(p, chip=replace(p.chip, memory_bytes_per_s=rates[p.name])) for p in pools.pools]
    return replace(pools, pools=tuple(changed))


def test_chips_that_update_twice_as_fast_own_twice_as_much():
    pools, work = updating(POOLS, fast=2e12, slow=1e12), workload(12, batch=16)
    completed = complete(plan((8, [("fast", 1, (0, 12))]), (8, [("slow", 1, (0, 12))])), Problem(pools, work))
    assert owned_parameters(completed, work.units) == [8_000_000, 4_000_000]


def test_they_own_no_more_than_others_where_they_have_no_room_for_it():
    work, written = workload(12, batch=16), plan((8, [("fast", 1, (0, 12))]), (8, [("slow", 1, (0, 12))]))
    roomy = updating(topology(pool("fast"), pool("slow")), fast=2e12, slow=1e12)
    whole = complete(written, Problem(roomy, work))
    twice, even = (memory_need(known, (0, 0), Problem(roomy, work)).total for known in (whole, evenly(whole)))
    assert even < twice
    tight = replace(roomy, pools=(replace(roomy.pools[0], memory_bytes=twice - 1), roomy.pools[1]))
    assert owned_parameters(complete(written, Problem(tight, work)), work.units) == [6_000_000, 6_000_000]


def evenly(completed):
    """The plan of two stages in which each owns every other unit."""
    owns = [tuple((u, u + 1) for u in range(first, 12, 2)) for first in (0, 1)]
    return completed.with_stages(lambda place, stage: stage.model_copy(update={"owns": owns[place[0]]}))


def test_owners_are_even_where_some_update_in_host_memory_beside_the_next_step():
    pools, work = updating(POOLS, fast=2e12, slow=1e12), workload(12, batch=16)
    written = changed(plan((8, [("fast", 1, (0, 12))]), (8, [("slow", 1, (0, 12))])), stage=0, optimizer="host")
    completed = complete(written, Problem(pools, work))
    assert owned_parameters(completed, work.units) == [6_000_000, 6_000_000]


def test_a_stage_has_the_precision_of_its_pool_and_no_other():
    pools = topology(pool("wide", 4), pool("narrow", 4, precision="float16"))
    written = plan((16, [("wide", 2, (0, 4)), ("narrow", 2, (4, 8))]))
    completed = complete(written, Problem(pools, WORK))
    assert completed.precisions() == {"wide": "float32", "narrow": "float16"}
    assert complete(completed, Problem(pools, WORK)) == completed
    assert '"precision": "float16"' in completed.to_json()
    error = refusal(changed(written, stage=1, precision="bfloat16"), pools)
    assert (error.key, error.value) == ("pipelines[0].stages[1].precision", "bfloat16")
    assert error.remedy == "leave it out, or set pools.narrow.precision to bfloat16"
