"""What runs beside the collectives of a tensor-parallel group, by the order in which everything is issued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from backends.communicator import Communicator
from backends.operators import Operators
from backends.watch import Watch
from backends.watching import Watching
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.models.unit_module import build_unit

DIMS = Dimensions(layers=1, hidden=16, heads=4, kv_heads=4, ffn=24, vocab=11)
NOTHING = torch.empty(0, dtype=torch.int64)


class Ticket:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def wait(self) -> None:
        self._log.append("wait")

    def is_completed(self) -> bool:
        return False


class Logged(Communicator):
    """Of two ranks, the other of which adds nothing."""

    def __init__(self, log: list[str]) -> None:
        super().__init__("logged", 0, range(2), torch.device("cpu"), Watch())
        self._log = log

    def _start(self) -> Ticket:
        self._log.append("start")
        return Ticket(self._log)

    def start_all_reduce(self, x: torch.Tensor, largest: bool = False) -> Ticket:
        return self._start()

    def start_all_gather(self, whole: torch.Tensor, part: torch.Tensor) -> Ticket:
        whole.view(-1).copy_(part.view(-1).repeat(2))
        return self._start()

    def start_reduce_scatter(self, part: torch.Tensor, whole: torch.Tensor) -> Ticket:
        part.view(-1).copy_(whole.view(-1)[: part.numel()])
        return self._start()

    def all_gather(self, parts: Sequence[torch.Tensor]) -> None:
        raise NotImplementedError

    def all_to_all(self, *_: Any) -> Ticket:
        raise NotImplementedError

    send = receive = all_to_all


class Products(Watching):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self._log.append("product")
        return function(*args, **(kwargs or {}))


def _logged(kind: str, **ways: Any) -> tuple[list[str], list[str]]:
    """The order of products and collectives in a unit's forward and in its second backward."""
    log: list[str] = []
    group = TensorGroup(2, 0, Logged(log), **ways)
    index = [unit.kind for unit in architecture(DIMS).units].index(kind)
    unit = build_unit(DIMS, index, Builder(group, Operators()))
    x_BTD = torch.randn(1, 4, DIMS.hidden, requires_grad=True)
    for _ in range(2):
        log.clear()
        with Products(log):
            (y_BTD,) = unit({"x_BTD": x_BTD}, Batch(NOTHING, NOTHING)).values()
            forward = list(log)
            log.clear()
            y_BTD.sum().backward()
    return forward, log


@pytest.mark.parametrize(("kind", "weights"), [("attention", 4), ("mlp", 3)])
def test_weight_gradients_are_made_while_the_input_gradient_is_summed(kind: str, weights: int) -> None:
    _, backward = _logged(kind)
    assert backward == ["product"] * weights + ["start"] + ["product"] * weights + ["wait"]


@pytest.mark.parametrize(("kind", "weights"), [("attention", 4), ("mlp", 3)])
def test_with_rows_of_the_stream_too(kind: str, weights: int) -> None:
    forward, backward = _logged(kind, sequence_parallel=True)
    assert forward == ["start", "wait"] + ["product"] * weights + ["start", "wait"]
    assert backward == ["start", "wait"] + ["product"] * weights + ["start"] + ["product"] * weights + ["wait"]


@pytest.mark.parametrize("rows", [False, True])
def test_a_slice_is_summed_while_the_next_is_computed(rows: bool) -> None:
    forward, backward = _logged("mlp", sequence_parallel=rows, slices=3)
    gather = ["start", "wait"] if rows else []
    assert forward == gather + ["product"] * 2 + ["product", "start"] * 3 + ["wait"] * 3
    last = ["start"] * 3 + ["wait", "product"] * 3 if rows else ["product"]
    assert backward == last + ["product"] * 2 + ["start"] + ["product"] * 3 + ["wait"]


def test_one_rank_says_nothing() -> None:
    x = torch.ones(2, 3, 4)
    assert TensorGroup().copy_in(x) is TensorGroup().reduce_out(x) is x
