"""One hash of a tensor, however it is cut; and what it sees."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.watching import Watching
from bridge.layout.layout import TensorLayout
from bridge.layout.reshard import Placement
from bridge.rank import RankId
from hetero.engine.state import replicas
from hetero.engine.state.ownership import Holder, Holding, first_replicas
from hetero.engine.state.replicas import ReplicaCheck, ReplicaDrift, shard_hash, weighted_bits
from hetero.engine.step.totals import ROOM
from tests.patience import WAIT_S
from tests.unit.hetero.engine.placements import SHAPES, numbered, part_of, placements, ranks, shard


def _whole_hash(name: str, value: torch.Tensor) -> int:
    return int(shard_hash(name, value, tuple((0, extent) for extent in value.shape)))


@given(st.data(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_shards_of_any_layout_add_up_to_the_whole(data: st.DataObject, dtype: torch.dtype) -> None:
    shape = data.draw(st.sampled_from(SHAPES))
    owners = first_replicas(data.draw(placements(shape, "a")), 0).layout
    whole = (numbered(shape) - 7.5).to(dtype)
    parts = [shard_hash("w", shard(whole, owners, i), owners.region(i)) for i in range(owners.size)]
    assert sum(int(part) for part in parts) % 2**64 == _whole_hash("w", whole)


@given(st.data())
def test_any_changed_bit_shows(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(SHAPES))
    whole = numbered(shape) + 0.1
    changed = whole.clone()
    element = data.draw(st.integers(0, whole.numel() - 1))
    changed.view(torch.int32).view(-1)[element] ^= 1 << data.draw(st.integers(0, 30))
    assert _whole_hash("w", changed) != _whole_hash("w", whole)


@given(st.data())
def test_swapped_elements_show(data: st.DataObject) -> None:
    whole = numbered((12, 4)) + 0.1
    one, other = data.draw(st.lists(st.integers(0, 47), min_size=2, max_size=2, unique=True))
    swapped = whole.clone().view(-1)
    swapped[[one, other]] = swapped[[other, one]]
    assert _whole_hash("w", swapped) != _whole_hash("w", whole)


def test_swapped_tensors_show() -> None:
    assert _whole_hash("v", numbered((8,))) != _whole_hash("w", numbered((8,)))


def test_one_hash_on_any_chip_stays_what_it_is() -> None:
    """Pinned: ranks of two versions or vendors that disagree here would report drift that there is not."""
    assert _whole_hash("w", numbered((3, 5)).bfloat16()) == 5732928789401547664


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64, 24), (1536,), (4, 16, 24)])
def test_slices_do_not_show(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    whole = (numbered(shape) + 0.1).to(dtype)
    expected = _whole_hash("w", whole)
    monkeypatch.setattr(replicas, "_CACHED_SLICE", 100)
    assert _whole_hash("w", whole) == expected


def test_the_chip_works_on_slices_with_plain_integer_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that CUDA, NPU and XPU all have for int64, with nothing as long as the shard but views of it."""
    monkeypatch.setattr(replicas, "_CACHED_SLICE", 100)
    whole = numbered((64, 24)).bfloat16()
    with _Operations() as found:
        weighted_bits(whole, ((0, 64), (0, 24)))
    views = {"detach", "view", "split", "split_with_sizes", "slice", "unsqueeze", "expand", "alias"}
    made = {"_to_copy", "mul", "mul_", "sum", "add_", "ones", "zeros", "lift_fresh", "reshape"}
    assert found.longest.keys() <= views | made
    assert all(elements <= 100 for name, elements in found.longest.items() if name not in views)


class _Operations(Watching):
    """Notes the names of operations and the most elements that one gave."""

    def __init__(self) -> None:
        super().__init__()
        self.longest: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        elements = result.numel() if isinstance(result, torch.Tensor) else 0
        self.longest[name] = max(elements, self.longest.get(name, 0))
        return result


class MeetingTotals:
    """Sums over threads that play the ranks."""

    def __init__(self, count: int) -> None:
        self._values: list[torch.Tensor] = []
        self._lock, self._barrier = threading.Lock(), threading.Barrier(count, timeout=WAIT_S)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        assert values.numel() <= ROOM
        with self._lock:
            self._values.append(values)
        self._barrier.wait()
        total = torch.stack(self._values).sum(0)
        if self._barrier.wait() == 0:
            self._values.clear()
        self._barrier.wait()
        return total


def _compare(tensors: Sequence[Holding], held: dict[RankId, dict[str, torch.Tensor]]) -> list[Exception]:
    """All ranks compare; the errors that they raise."""
    totals, errors = MeetingTotals(len(held)), []

    def compare(rank: RankId) -> None:
        try:
            ReplicaCheck(tensors, held[rank], rank).compare(4, totals)  # type: ignore[arg-type]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=compare, args=(rank,)) for rank in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def _fleet() -> tuple[list[Holding], dict[RankId, dict[str, torch.Tensor]]]:
    """A matrix of unit 3 split over a:0-1, b:0-3 (each half twice) and whole on c:0; a norm of unit 5 on a and c."""
    split, heads = TensorLayout.split((8, 2), 0, 2), TensorLayout.split_heads((8, 2), 0, 2, 4, 4)
    matrix = [
        Placement(split, ranks("a", 2)),
        Placement(heads, ranks("b", 4)),
        Placement(TensorLayout.replicated((8, 2), 1), ranks("c", 1)),
    ]
    norm = [Placement(TensorLayout.replicated((8,), placement.layout.size), placement.ranks) for placement in matrix]
    tensors: list[Holding] = []
    held: dict[RankId, dict[str, torch.Tensor]] = {rank: {} for placement in matrix for rank in placement.ranks}
    for name, unit, placed in (("w", 3, matrix), ("norm", 5, [norm[0], norm[2]])):
        holders = tuple(Holder(number, 0, frozenset({0}), placement) for number, placement in enumerate(placed))
        tensors.append(Holding(name, unit, holders, 0))
        for placement in placed:
            for position, rank in enumerate(placement.ranks):
                held[rank][name] = shard(numbered(placement.layout.shape) + 0.3, placement.layout, position)
    return tensors, held


def test_equal_copies_pass_whatever_their_layouts() -> None:
    assert _compare(*_fleet()) == []


@pytest.mark.parametrize(("rank", "name", "unit"), [("a:1", "w", 3), ("b:3", "w", 3), ("c:0", "norm", 5)])
def test_a_drifted_copy_is_named_on_every_rank(rank: str, name: str, unit: int) -> None:
    tensors, held = _fleet()
    drifted = held[RankId.parse(rank)][name]
    drifted.view(-1)[-1] = np.nextafter(np.float32(drifted.view(-1)[-1]), np.float32(np.inf)).item()
    errors = _compare(tensors, held)
    assert len(errors) == len(held)
    assert all(isinstance(error, ReplicaDrift) and error.value == name for error in errors)
    assert "after step 4" in str(errors[0])


@pytest.mark.parametrize("drifted", ["a:0", "a:1", "a:3", "b:0"])
def test_replicas_that_one_part_has_more_of_are_compared_too(drifted: str) -> None:
    """The lower half on a:0 and a:1, the upper on a:3, nothing on a:2; all of it on b:0."""
    low, high = (((0, 4), (0, 2)), ((4, 8), (0, 2)))
    placed = (
        Placement(TensorLayout((8, 2), (low, low, None, high)), ranks("a", 4)),
        Placement(TensorLayout.replicated((8, 2), 1), ranks("b", 1)),
    )
    tensors = [Holding("w", 0, tuple(Holder(p, 0, frozenset({0}), where) for p, where in enumerate(placed)), 0)]
    found = {(rank, where): part_of(numbered((8, 2)) + 0.3, where, rank) for where in placed for rank in where.ranks}
    held = {rank: {"w": part} if part is not None else {} for (rank, _), part in found.items()}
    assert _compare(tensors, held) == []
    held[RankId.parse(drifted)]["w"].view(-1)[0] += 1
    assert len(_compare(tensors, held)) == len(held)
