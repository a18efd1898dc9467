"""Beside torch's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hetero.engine.step.backward import backward


def made(precision: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    leaf = torch.randn(3, 4, requires_grad=True)
    outputs = [(leaf * 2).to(precision), leaf.exp().sum(0)]
    return leaf, outputs, [torch.randn_like(output) for output in outputs]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_gradients_have_the_bits_of_torchs_own(precision: torch.dtype) -> None:
    leaf, outputs, gradients = made(precision)
    backward(outputs, gradients)
    other, outputs, gradients = made(precision)
    torch.autograd.backward(outputs, gradients)
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, other.grad)


def test_gradients_add_up() -> None:
    leaf = torch.ones(2, requires_grad=True)
    for _ in range(2):
        backward([leaf * 3], [torch.ones(2)])
    assert torch.equal(leaf.grad, torch.full((2,), 6.0))


@pytest.mark.parametrize(("output", "gradient"), [((2,), (3,)), ((1, 3), (4, 3)), ((3,), (1, 3))])
def test_another_size_is_refused(output: tuple[int, ...], gradient: tuple[int, ...]) -> None:
    """Also one that autograd would take, and add up."""
    with pytest.raises(ValueError, match="shape"):
        backward([torch.ones(output, requires_grad=True) * 3], [torch.ones(gradient)])


@pytest.mark.slow
def test_a_rank_never_loads_sympy() -> None:
    """Neither ahead nor with its first backward: it would take a quarter of the time in which a rank is up."""
    script = """
import sys, torch
import hetero.engine.rank
from hetero.engine.step.backward import backward
backward([torch.ones(2, requires_grad=True) * 3], [torch.ones(2)])
assert "sympy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
