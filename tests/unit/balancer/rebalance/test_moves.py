"""What a change of plan costs, by hand."""

from __future__ import annotations

from balancer.completion.completion import complete
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.rebalance.moves import Move, move
from balancer.rebalance.owners import with_owners
from tests.unit.balancer.cases import plan, pool, topology, workload

RATE, UNIT = 1e6, 1000
VALUES, MOMENTS = 4 * UNIT, 8 * UNIT


def problem(gib: float = 80.0) -> Problem:
    return Problem(
        topology(pool("a", 2, gib=gib), pool("b", 2, gib=gib), bytes_per_s=RATE), workload(4, 8, parameters=UNIT)
    )


ASKED = problem()
CHAIN = plan((8, [("a", 2, (0, 2)), ("b", 2, (2, 4))]))
SHARED = plan((5, [("a", 2, (0, 4))]), (3, [("b", 2, (0, 4))]))


def cost(before: Plan, after: Plan, asked: Problem = ASKED) -> Move:
    return move(complete(before, asked), complete(after, asked), asked)


def test_shares_move_nothing() -> None:
    before = complete(SHARED, ASKED)
    pipelines = [p.model_copy(update={"share": share}) for p, share in zip(before.pipelines, (4, 4), strict=True)]
    after = before.model_copy(update={"pipelines": tuple(pipelines)})
    assert move(before, complete(after, ASKED), ASKED) == Move(0, 0.0, 0)


def test_a_unit_that_changes_pools_takes_its_state_along() -> None:
    moved = cost(CHAIN, plan((8, [("a", 2, (0, 1)), ("b", 2, (1, 4))])))
    assert moved == Move(VALUES + MOMENTS, (VALUES + MOMENTS) / RATE, 0)


def test_a_pool_that_has_nothing_gets_each_part_once() -> None:
    """Of the copies of one pool the second comes from the first."""
    lone = plan((8, [("a", 1, (0, 4))]))
    copies = plan((4, [("a", 1, (0, 4))]), (2, [("b", 1, (0, 4))]), (2, [("b", 1, (0, 4))]))
    over = cost(lone, copies).seconds * RATE
    assert 4 * VALUES <= over < 2 * 4 * VALUES + 4 * MOMENTS


def test_another_tp_moves_what_chips_lack() -> None:
    moved = cost(plan((8, [("a", 2, (0, 4))])), plan((8, [("a", 1, (0, 4))])))
    assert moved.nbytes == 4 * (VALUES + MOMENTS) / 2


def test_no_room_for_both_plans() -> None:
    """Four units fit, but not beside four others."""
    held = 4 * (VALUES + MOMENTS) / 2
    tight = problem(1.5 * held / 2**30)
    before, after = (complete(plan((8, [(name, 2, (0, 4))])), ASKED) for name in ("a", "b"))
    assert move(before, after, tight).shortage_bytes == 0
    mixed = complete(CHAIN, ASKED)
    turned = complete(plan((8, [("b", 2, (0, 2)), ("a", 2, (2, 4))])), ASKED)
    assert move(mixed, turned, problem(0.75 * held / 2**30)).shortage_bytes == held / 4


def test_owners_stay_where_their_units_do() -> None:
    others = 3, [("b", 1, (0, 3)), ("b", 1, (3, 4))]
    before = complete(plan((5, [("a", 1, (0, 2)), ("a", 1, (2, 4))]), others), ASKED)
    recut = plan((5, [("a", 1, (0, 3)), ("a", 1, (3, 4))]), others)
    after = complete(with_owners(before, recut, ASKED.workload), ASKED)
    for (_, then), (_, now) in zip(before.stages(), after.stages(), strict=True):
        assert set(now.owned_units()) >= set(then.owned_units()) & set(now.unit_indices())
    assert sorted(unit for _, stage in after.stages() for unit in stage.owned_units()) == [0, 1, 2, 3]
