"""Products and attention are timed, forward and backward, and nothing else is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch.nn import functional

from backends.backend import Stopwatch
from backends.cpu import CpuBackend
from hetero.engine.products import Products


class _Second(Stopwatch):
    def paused(self, part: float) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> None: ...

    def seconds(self) -> float:
        return 1.0


class _Clock(CpuBackend):
    def start(self, expected_s: float | None = None, after: Stopwatch | None = None) -> Stopwatch:
        return _Second()


def test_a_product_is_one_forward_and_two_backward() -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(16, 8, requires_grad=True)
    with Products(_Clock()) as products:
        y = functional.silu(functional.linear(x, weight)) * 2 + 1
        assert products.seconds == 1
        y.sum().backward()
    assert products.seconds == 3
    functional.linear(x, weight)
    assert products.seconds == 3, "outside"


def test_attention_is_one_forward_and_one_backward() -> None:
    q, k, v = (torch.randn(1, 2, 4, 8, requires_grad=True) for _ in "qkv")
    with Products(_Clock()) as products:
        functional.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
    assert products.seconds == 2


def test_values_are_as_they_are_without() -> None:
    x, weight = torch.randn(4, 8), torch.randn(16, 8, requires_grad=True)
    with Products(CpuBackend()):
        functional.linear(x, weight).square().sum().backward()
    timed = weight.grad
    weight.grad = None
    functional.linear(x, weight).square().sum().backward()
    assert timed is not None
    assert torch.equal(timed, weight.grad)  # type: ignore[arg-type]


@pytest.mark.slow
def test_beside_what_is_compiled_nothing_of_its_own_is() -> None:
    """As it would be with each call, and then warn of it."""
    from torch._dynamo.utils import counters

    counters.clear()
    compiled = torch.compile(lambda x: (x @ x).relu(), backend="eager")
    with Products(CpuBackend()) as products:
        compiled(torch.ones(4, 4))
    assert products.seconds > 0
    assert not counters["stats"]
