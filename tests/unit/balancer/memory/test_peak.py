"""When a chip is fullest, action by action, where a backward is one action or two."""

from __future__ import annotations

import pytest

from balancer.completion.completion import complete
from balancer.memory.memory import stage_bytes
from balancer.memory.peak import ChunkRoom, UnitRoom, compute_peak, first_forwards_peak
from balancer.problem import Problem
from balancer.schedule.action import Action, Kind
from hetero.models.options import load_preset
from hetero.models.registry import architecture
from tests.unit.balancer.cases import plan, pool, topology

ROOM = ChunkRoom(units=(UnitRoom(kept=10, backward=3, gradient=2, pairs=4),))


@pytest.mark.parametrize(
    ("listed", "peak"),
    [
        ("F0 F1 B0 B1", 20 + 3.5),  # half of what a backward needs is still there when a gradient is added
        ("F0 F1 I0 W0 I1 W1", 20 + 3),
        ("F0 I0 F1 I1 W0 W1", 4 + 10 + 3),
        ("F0 I0 W0 F1 I1 W1", 10 + 3),
        ("F0 F1 F2 I0 I1 I2 W0 W1 W2", 30 + 3),
    ],
)
def test_pairs_are_kept_from_the_first_action_of_a_backward_to_the_second(listed: str, peak: float) -> None:
    actions = tuple(Action(Kind(name[0]), 0, int(name[1])) for name in listed.split())
    assert compute_peak(actions, {0: ROOM}, [0.0] * len(actions)) == peak


@pytest.mark.parametrize(
    ("listed", "sums", "peak"),
    [
        ("F0 I0 W0", 0, 8 + 2 + 20),  # half of what a backward needs is gone when the gradient is added
        ("F0 I0 W0", 20, 8 + 20 + 4),  # the first is the sum
        ("F0 I0 F1 I1 W0 W1", 20, 20 + 8 + 2 + 20),
    ],
)
def test_a_unit_without_pairs_makes_its_weight_gradient_in_the_first_action(
    listed: str, sums: float, peak: float
) -> None:
    room = ChunkRoom(units=(UnitRoom(kept=8, backward=4, gradient=20, sums=sums),))
    actions = tuple(Action(Kind(name[0]), 0, int(name[1])) for name in listed.split())
    assert compute_peak(actions, {0: room}, [0.0] * len(actions)) == peak
    assert room.most(Kind.W, first=False, last=False) == 0


@pytest.mark.parametrize(
    ("back", "peak"),
    [
        ({0: [0, 0], 2: [0]}, 32 + 15),  # two micro-batches of the first chunk, one of the other
        ({0: [50, 0], 2: [0]}, 50),  # before any forward
        ({0: [0, 50], 2: [0]}, 50 + 13),  # beside the first unit's
        ({0: [0, 0], 2: [50]}, 50 + 33),  # beside all forwards of the first chunk
    ],
)
def test_first_forwards_let_go_of_parameters_that_return_unit_by_unit(back: dict[int, list[int]], peak: float) -> None:
    first = ChunkRoom(units=(UnitRoom(kept=10, forward=2), UnitRoom(kept=5, forward=1)), ends=1)
    rooms = {0: first, 2: ChunkRoom(units=(UnitRoom(kept=10, forward=5),))}
    listed = [(Kind.F, 0, 0), (Kind.F, 0, 1), (Kind.F, 2, 0), (Kind.B, 2, 0), (Kind.F, 2, 1)]
    assert first_forwards_peak([Action(*one) for one in listed], rooms, back) == peak


def test_last_weight_gradients_leave_what_is_to_be_sent() -> None:
    room = ChunkRoom(units=(UnitRoom(kept=10, pairs=4, packed=50),))
    actions = tuple(Action(Kind(kind), 0, 0) for kind in "FIW")
    assert compute_peak(actions, {0: room}, [0.0] * 3) == 50


@pytest.mark.parametrize("vocab", [32_000, 128_256])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_zero_bubble_keeps_no_more_than_1f1b_with_the_same_bounds(precision: str, vocab: int) -> None:
    """A pair is less than what a forward keeps of the same product."""
    dims = load_preset("llama-7b").model_copy(update={"vocab": vocab})
    work = architecture(dims).workload(2048, 16, precision)
    middle = len(work.units) // 2
    chips = topology(*(pool(name, 1, gib=1e3, precision=precision) for name in "ab"))
    stages = [("a", 1, (0, middle)), ("b", 1, (middle, len(work.units)))]
    zero, plain = (
        complete(plan((16, stages), schedule=name), Problem(chips, work)) for name in ("zero-bubble", "1f1b")
    )
    assert zero.pipelines[0].warmups() == plain.pipelines[0].warmups() == (2, 1)
    for s in (0, 1):
        found, least = (stage_bytes(work, one, 0, s, precision) for one in (zero, plain))
        assert found.total <= least.total
    assert found.total == least.total, "the last stage is fullest in its head, whose I is a whole backward"
