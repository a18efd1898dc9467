"""A product beside torch's own, and what becomes of its weight's gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hetero.layers.product import product
from hetero.layers.weight_gradients import WeightGradients

E, D = 5, 7
PRECISIONS = pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])


def _made(precision: torch.dtype, bias: bool = True) -> tuple[torch.Tensor, nn.Parameter, nn.Parameter | None]:
    torch.manual_seed(0)
    x_BTD = torch.randn(2, 3, D).to(precision).requires_grad_()
    weight_ED = nn.Parameter(torch.randn(E, D).to(precision))
    return x_BTD, weight_ED, nn.Parameter(torch.randn(E).to(precision)) if bias else None


def _gradient(precision: torch.dtype) -> torch.Tensor:
    return torch.randn(2, 3, E, generator=torch.Generator().manual_seed(1)).to(precision)


@PRECISIONS
@pytest.mark.parametrize("bias", [True, False])
def test_a_first_backward_has_the_bits_of_torchs_own(precision: torch.dtype, bias: bool) -> None:
    ours, theirs = (_trained(own, precision, bias) for own in (True, False))
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(ours, theirs, strict=True))


@PRECISIONS
def test_what_does_not_lie_row_by_row_has_torchs_values(precision: torch.dtype) -> None:
    """Neither the input nor the gradient."""
    ours, theirs = (_trained(own, precision, bias=True, turned=True) for own in (True, False))
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted)


def _trained(own: bool, precision: torch.dtype, bias: bool, turned: bool = False) -> list[torch.Tensor]:
    x_BTD, weight_ED, bias_E = _made(precision, bias)
    given = x_BTD.transpose(0, 1) if turned else x_BTD
    y = product(given, weight_ED, bias_E, WeightGradients()) if own else F.linear(given, weight_ED, bias_E)
    (y.transpose(0, 1) if turned else y).backward(_gradient(precision))
    gradients = [parameter.grad for parameter in (x_BTD, weight_ED, bias_E) if parameter is not None]
    return [y.detach(), *(gradient for gradient in gradients if gradient is not None)]


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    x_BTD, weight_ED, _ = _made(torch.float32)
    product(x_BTD.detach(), weight_ED, None, WeightGradients()).sum().backward()
    assert weight_ED.grad is not None
    frozen = weight_ED.detach()
    product(x_BTD, frozen, None, WeightGradients()).sum().backward()
    assert x_BTD.grad is not None
    assert frozen.grad is None


@PRECISIONS
def test_gradients_of_narrow_weights_are_added_to_their_wide_sums(precision: torch.dtype) -> None:
    x_BTD, weight_ED, _ = _made(precision)
    weight_gradients, total_ED = WeightGradients(), torch.zeros(E, D)
    weight_gradients.sums = {weight_ED: total_ED}
    for _ in range(2):
        product(x_BTD, weight_ED, None, weight_gradients).backward(_gradient(precision))
    once_ED = (_gradient(precision).flatten(0, 1).t() @ x_BTD.detach().flatten(0, 1)).float()
    torch.testing.assert_close(total_ED, 2 * once_ED)
    assert weight_ED.grad is None


@PRECISIONS
def test_what_is_kept_back_makes_the_same_later(precision: torch.dtype) -> None:
    x_BTD, weight_ED, bias_E = _made(precision)
    weight_gradients = WeightGradients()
    with weight_gradients.keeping() as pairs:
        product(x_BTD, weight_ED, bias_E, weight_gradients).backward(_gradient(precision))
    assert weight_ED.grad is None
    assert x_BTD.grad is not None
    assert bias_E is not None
    assert bias_E.grad is not None
    assert [one.weight_ED for one in pairs] == [weight_ED]
    weight_gradients.make(pairs.pop())
    at_once = _made(precision)[1]
    product(x_BTD, at_once, bias_E, weight_gradients).backward(_gradient(precision))
    assert torch.equal(weight_ED.grad, at_once.grad)


def test_what_is_kept_back_holds_no_graph() -> None:
    """It would hold all that the units before have kept."""
    x_BTD, weight_ED, _ = _made(torch.float32)
    weight_gradients = WeightGradients()
    with weight_gradients.keeping() as pairs:
        product(x_BTD * 2, weight_ED, None, weight_gradients).backward(_gradient(torch.float32))
    (one,) = pairs
    assert one.x_ND.grad_fn is None
    assert one.gradient_NE.grad_fn is None
    assert one.x_ND._base is None or one.x_ND._base.grad_fn is None


def test_a_backward_that_fails_leaves_nobody_keeping() -> None:
    weight_gradients = WeightGradients()
    with pytest.raises(RuntimeError, match="broken"), weight_gradients.keeping():
        raise RuntimeError("broken")
    x_BTD, weight_ED, _ = _made(torch.float32)
    product(x_BTD, weight_ED, None, weight_gradients).sum().backward()
    assert weight_ED.grad is not None


def test_whoever_asks_is_told_when_a_gradient_is_made() -> None:
    x_BTD, weight_ED, _ = _made(torch.float32)
    weight_gradients, told = WeightGradients(), []
    with weight_gradients.telling({weight_ED: lambda weight: told.append(weight.grad is not None)}):
        with weight_gradients.keeping() as pairs:
            product(x_BTD, weight_ED, None, weight_gradients).sum().backward()
        assert told == []
        weight_gradients.make(pairs.pop())
    product(x_BTD, weight_ED, None, weight_gradients).sum().backward()
    assert told == [True]
