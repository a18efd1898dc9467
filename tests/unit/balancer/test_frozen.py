"""What is frozen is computed with and held, and costs nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.completion.completion import complete
from balancer.cost.sync_traffic import shared_state
from balancer.cost.times import datasheet_times, update_s
from balancer.cost.workload import GRADIENT_BYTES
from balancer.memory.memory import WEIGHT_BYTES, optimizer_bytes, stage_bytes
from balancer.problem import Problem
from tests.unit.balancer.cases import plan, pool, topology, unit, workload

PLAN = plan((8, [("a", 1, (0, 4)), ("b", 2, (4, 8))]), (8, [("b", 2, (0, 8))]))
CHIPS = topology(pool("a", 1), pool("b", 4))


def _work(frozen: int):
    """Of each unit's million parameters."""
    each = replace(unit(), frozen=frozen, frozen_flops=0.8e11 * frozen / 1e6, largest_tensor=1_000_000 - frozen)
    return workload([replace(each, weight_flops=each.weight_flops * (1 - frozen / 1e6))] * 8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_has_its_weights_and_neither_gradients_nor_state(precision: str) -> None:
    work = {frozen: _work(frozen) for frozen in (0, 900_000)}
    completed = complete(PLAN, Problem(CHIPS, work[0]))
    whole, some = (stage_bytes(each, completed, 0, 0, precision) for each in work.values())
    assert some.weights == whole.weights == 4_000_000 * WEIGHT_BYTES[precision]
    assert some.gradients == whole.gradients / 10 == 400_000 * GRADIENT_BYTES
    owned = 100_000 * len(completed.pipelines[0].stages[0].owned_units())
    assert some.optimizer == owned * optimizer_bytes(precision, work[0].update)


def test_nothing_of_it_moves_between_copies() -> None:
    problem = Problem(CHIPS, _work(900_000))
    found = shared_state(complete(PLAN, problem), problem.workload)
    assert [one.parameters for one in found] == [100_000] * 8
    assert shared_state(complete(PLAN, problem), _work(1_000_000)) == []


def test_a_backward_is_shorter_by_its_weights_gradients_and_an_update_by_all_of_it() -> None:
    whole, frozen = (datasheet_times(CHIPS, _work(n)).lookup("a", 1, "attention") for n in (0, 1_000_000))
    assert whole.backward_s == pytest.approx(2 * whole.forward_s)
    assert frozen.forward_s == whole.forward_s
    assert frozen.backward_s == pytest.approx(1.2 * whole.forward_s)
    assert frozen.weight_s == 0
    completed = complete(PLAN, Problem(CHIPS, _work(0)))
    stage = completed.pipelines[0].stages[0]
    took = [update_s(CHIPS.pool("a").chip, _work(n), stage) for n in (0, 900_000)]
    assert took[1] == pytest.approx(took[0] / 10)


def test_what_tp_does_not_divide_is_whole_on_every_chip() -> None:
    """As adapters are, of which one factor lies so."""
    units = [replace(unit(), frozen=900_000, undivided=100_000)] * 8
    completed = complete(PLAN, Problem(CHIPS, workload(units)))
    found = stage_bytes(workload(units), completed, 1, 0, "float32")
    assert found.weights == 8 * (450_000 + 100_000) * WEIGHT_BYTES["float32"]
    assert found.gradients == 8 * 100_000 * GRADIENT_BYTES
