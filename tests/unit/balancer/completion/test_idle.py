from __future__ import annotations

from balancer.completion.completion import complete
from balancer.completion.idle import idle_chips
from balancer.problem import Problem
from balancer.search.ledger import ledger
from tests.unit.balancer.cases import plan, pool, topology, workload
from tests.unit.balancer.simulate.test_simulate import predict


def told(written, *pools, legal_tp=lambda tp: None):
    chips = topology(*pools)
    completed = complete(written, Problem(chips, workload(8, batch=8), legal_tp=legal_tp))
    return [(i.pool, i.chips, i.count, i.why, i.remedy) for i in idle_chips(completed, chips, legal_tp)]


def test_a_plan_that_uses_all_chips_has_nothing_to_tell():
    assert not told(plan((8, [("a", 2, (0, 4)), ("a", 2, (4, 8))])), pool("a", 4))


def test_a_tp_that_does_not_divide_the_pool():
    [one] = told(plan((8, [("a", 2, (0, 8))])), pool("a", 3))
    assert one == ("a", 1, 3, "tp 2 does not divide 3", "use a tp of 1 or 3 there, or a count of 2")


def test_only_sizes_that_the_model_can_take_are_proposed():
    [*_, remedy] = told(plan((8, [("a", 2, (0, 8))])), pool("a", 3), legal_tp=lambda tp: "no" if tp % 2 else None)[0]
    assert remedy == "use a count of 2"


def test_what_is_left_on_each_host():
    stages = (8, [("a", 2, (0, 4)), ("a", 2, (4, 8))])
    [one] = told(plan(stages), pool("a", 6, hosts=2))
    assert one[1:4] == (2, 6, "no host has the 2 chips left that one more stage of tp 2 takes")
    assert one[4] == "use a tp of 1 or 3 there"


def test_a_plan_by_hand_with_room_for_more():
    [one] = told(plan((8, [("a", 1, (0, 8))])), pool("a", 4))
    assert one[1:] == (
        3, 4, "the plan's stages there take 1",
        "give it more stages or pipelines there, or set pools.a.count to 1",
    )  # fmt: skip


def test_a_pool_in_no_stage():
    [one] = told(plan((8, [("a", 1, (0, 8))])), pool("a", 1), pool("b", 2))
    assert one[:4] == ("b", 2, 2, "the plan has no stage there")


def test_the_ledger_has_an_account_for_idle_chips():
    one, half = plan((8, [("a", 1, (0, 8))])), ("a", 1, (0, 8))
    assert ledger(predict(topology(pool("a", 1)), workload(8, batch=8), one))["idle"] == 0
    lazy = ledger(predict(topology(pool("a", 4)), workload(8, batch=8), plan((8, [half]))))
    busy = ledger(predict(topology(pool("a", 4)), workload(8, batch=8), plan(*[(2, [half])] * 4)))
    assert lazy["idle"] > 0.7
    assert abs(lazy["other"]) < 0.05
    assert busy["idle"] == 0
