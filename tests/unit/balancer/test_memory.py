"""What a chip is counted to hold beside weights and activations. Units are `cases.unit`: a million parameters each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.communicators import communicator_bytes
from balancer.completion import complete
from balancer.errors import PlanError
from balancer.memory import SLACK, stage_bytes
from balancer.staging import staging, total
from tests.unit.balancer.cases import plan, pool, topology, workload

MILLION = 1_000_000


def test_copies_of_a_pool_post_receives_for_gradients_and_parameters_when_a_step_begins() -> None:
    """Four pipelines in one pool, float32: six bytes for each parameter, as was counted in the engine."""
    chips, work = topology(pool("a", 4)), workload(8, batch=4)
    four = complete(plan(*[(1, [("a", 1, (0, 8))])] * 4), chips, work)
    for p in range(4):
        found = total(staging(work, four, (p, 0), 4))
        assert found.arriving + found.returning == 6 * 8 * MILLION
        assert found.packed == 4 * 6 * MILLION  # of the units that others own
        assert stage_bytes(work, four, p, 0, "float32").sync >= found.arriving + found.returning


def test_what_comes_over_a_bridge_lies_in_host_memory() -> None:
    chips, work = topology(pool("a", 1), pool("b", 1)), workload(8, batch=2)
    two = complete(plan((1, [("a", 1, (0, 8))]), (1, [("b", 1, (0, 8))])), chips, work)
    found = total(staging(work, two, (0, 0), 4))
    assert (found.arriving, found.returning, found.packed) == (0, 0, 0)
    assert found.summed == 4 * 4 * MILLION


def test_communicators_count_by_what_the_family_takes_for_one() -> None:
    chips, work = topology(pool("a", 4)), workload(8, batch=4)
    chip = replace(chips.pools[0].chip, communicator_bytes=400, pair_communicator_bytes=40)
    alone = complete(plan((4, [("a", 1, (0, 8))])), chips, work)
    assert communicator_bytes(alone, (0, 0), chip) == 0
    split = complete(plan((4, [("a", 2, (0, 8))])), chips, work)
    assert communicator_bytes(split, (0, 0), chip) == 2 * 400
    line = complete(plan((4, [("a", 1, (0, 4)), ("a", 1, (4, 8))])), chips, work)
    assert communicator_bytes(line, (0, 0), chip) == 400 + 2 * 40


def test_slack_and_communicators_count_against_the_limit() -> None:
    written, work = plan((2, [("a", 1, (0, 4)), ("a", 1, (4, 8))])), workload(8, batch=2)
    chips = topology(pool("a", 2))
    need = stage_bytes(work, complete(written, chips, work), 0, 0, "float32")
    assert need.total == need.tensors + round(SLACK * need.tensors)
    tight = replace(chips.pools[0], memory_bytes=need.total)
    complete(written, topology(tight), work)
    greedy = replace(tight, chip=replace(tight.chip, communicator_bytes=1))
    with pytest.raises(PlanError, match="communicators"):
        complete(written, topology(greedy), work)
