"""Every operator of every chip family against plain torch on the CPU, by value and by gradient.

The CPU and emulated chips run all of it anywhere, real chips where they are; the skip says what is missing.

Shapes: B batch, T time, H query heads, G key and value heads, K head dimension, D model dimension.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.adamw import adamw

from backends.accelerator import AcceleratorBackend
from backends.attention_mask import AttentionMask
from backends.backend import Backend
from backends.offers import TOLERANCES, Operator, Sample, as_function, outcome, samples
from backends.operators import Operators

NAMES = (
    "rms_norm", "offset_rms_norm", "layer_norm", "rotary", "attention", "masked_attention", "swiglu", "geglu", "gelu",
    "add_product",
)  # fmt: skip
PLAIN = Operators()


def _heads(batch: int, length: int, heads: int, size: int) -> torch.Tensor:
    return torch.randn(batch, length, heads, size).transpose(1, 2)


def _attention(batch: int, length: int, heads: int, groups: int, size: int) -> Sample:
    return Sample(tuple(_heads(batch, length, count, size) for count in (heads, groups, groups)))


def _masked(batch: int, length: int, heads: int, groups: int, size: int, window: int | None = None) -> Sample:
    documents_BT = torch.randint(4, (batch, length)).sort(-1).values
    return replace(_attention(batch, length, heads, groups, size), rest=(AttentionMask(documents_BT, window),))


def _rotary(batch: int, length: int, heads: int, size: int) -> Sample:
    angles_TK = (torch.arange(length)[:, None] * 10.0 ** -torch.arange(size // 2)).repeat(1, 2)
    return Sample((_heads(batch, length, heads, size),), (angles_TK.cos(), angles_TK.sin()))


def _more(name: str) -> list[Sample]:
    """One token alone, odd lengths, one head for all, sizes that are no power of two."""
    torch.manual_seed(1)
    sizes = ((1, 1, 8), (3, 65, 48), (2, 33, 100))
    return {
        "rms_norm": [Sample((5 * torch.randn(*size), torch.randn(size[-1])), (1e-6,)) for size in sizes],
        "offset_rms_norm": [Sample((5 * torch.randn(*size), torch.randn(size[-1])), (1e-6,)) for size in sizes],
        # A bias has the sum of all gradients, of which little is left where many tokens' are summed.
        "layer_norm": [Sample((5 * torch.randn(1, n, d), *torch.randn(2, d)), (1e-6,)) for n, d in ((1, 8), (3, 100))],
        "geglu": [Sample((2 * torch.randn(*size), torch.randn(*size)), ("none",)) for size in sizes],
        "gelu": [Sample((2 * torch.randn(*size),), ("none",)) for size in sizes],
        "swiglu": [Sample((2 * torch.randn(*size), torch.randn(*size))) for size in sizes],
        "masked_attention": [_masked(1, 1, 2, 1, 8), _masked(3, 65, 6, 2, 24), _masked(2, 130, 4, 1, 64, window=40)],
        "rotary": [_rotary(1, 1, 1, 8), _rotary(3, 65, 2, 24), _rotary(2, 130, 5, 64)],
        "add_product": [Sample((torch.randn(n, e), torch.randn(n, d))) for n, e, d in ((1, 1, 8), (130, 40, 33))],
        "attention": [_attention(1, 1, 2, 1, 8), _attention(3, 65, 6, 2, 24), _attention(2, 130, 4, 1, 64)],
    }[name]


def _of(table: Operators, name: str) -> Operator:
    return as_function(name, getattr(table, name))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(dtype, marks=() if dtype == torch.float32 else pytest.mark.slow) for dtype in TOLERANCES],
    ids=str,
)
def test_agrees_with_the_plain_one_by_value_and_gradient(backend: Backend, name: str, dtype: torch.dtype) -> None:
    own, plain = _of(backend.operators, name), _of(PLAIN, name)
    for sample in samples(name) + _more(name):
        rounded = sample.to(torch.device("cpu"), dtype)
        found = outcome(own, rounded.to(backend.device, dtype))
        wanted = outcome(plain, rounded.to(torch.device("cpu"), torch.float32))
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours.shape == theirs.shape
            assert ours.dtype == (torch.float32 if name == "add_product" and ours is found[0] else dtype)
            off = (ours.float().cpu() - theirs).norm()
            assert off <= TOLERANCES[dtype] * max(theirs.norm(), 1e-3), (name, theirs.shape, off / theirs.norm())


class _Scaled(torch.autograd.Function):
    """The right value with a gradient that is a little too large."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return 1.01 * gradients[0]


@pytest.mark.parametrize("name", ["rms_norm", "rotary", "attention", "masked_attention", "swiglu"])
def test_a_wrong_gradient_is_seen(name: str) -> None:
    wrong = replace(PLAIN, **{name: lambda *given: _Scaled.apply(getattr(PLAIN, name)(*given))})
    backend: Any = SimpleNamespace(operators=wrong, device=torch.device("cpu"))
    with pytest.raises(AssertionError, match=name):
        test_agrees_with_the_plain_one_by_value_and_gradient(backend, name, torch.float32)


def test_leaves_what_it_is_given_alone(backend: Backend, name: str) -> None:
    for sample in samples(name):
        here = sample.to(backend.device, torch.float32)
        outcome(_of(backend.operators, name), here)
        for given, kept in zip(here.inputs + here.rest, sample.inputs + sample.rest, strict=True):
            assert torch.equal(given.cpu(), kept) if isinstance(kept, torch.Tensor) else given == kept


def test_gives_the_same_bits_again_and_without_gradients(backend: Backend, name: str) -> None:
    """What is computed a second time for a backward stands for the first."""
    sample = samples(name)[-1].to(backend.device, torch.float32)
    operator = _of(backend.operators, name)
    first = outcome(operator, sample)[0]
    assert torch.equal(outcome(operator, sample)[0], first)
    with torch.no_grad():
        assert torch.equal(operator(*sample.inputs, *sample.rest), first)


def test_what_a_family_offers_is_taken_or_refused_with_a_reason(backend: Backend) -> None:
    table = backend.operators
    offered = {offer.operator for offer in backend.offers} if isinstance(backend, AcceleratorBackend) else set()
    assert offered <= table.own.keys() | table.refused.keys()
    assert not table.own.keys() & table.refused.keys()
    assert all(table.own.values())
    assert all(table.refused.values())
    for name in set(NAMES) - table.own.keys():
        assert getattr(table, name) is getattr(PLAIN, name)


def test_the_update_is_the_plain_one(backend: Backend) -> None:
    """AdamW by the chip's own kernel where it has one, after as many steps as its moments take to matter."""
    torch.manual_seed(2)
    state = [[torch.randn(33, 5), torch.randn(7)] for _ in range(2)] + [[torch.rand(33, 5), torch.rand(7)]]
    gradients = [[0.1 * torch.randn_like(x) for x in state[0]] for _ in range(4)]
    found = _updated(state, gradients, backend.device, backend.capabilities.fused_adamw)
    wanted = _updated(state, gradients, torch.device("cpu"), fused=False)
    torch.testing.assert_close([x.cpu() for x in found], wanted, rtol=1e-5, atol=1e-6)


def _updated(
    state: list[list[torch.Tensor]], gradients: list[list[torch.Tensor]], device: torch.device, fused: bool
) -> list[torch.Tensor]:
    masters, first, second = ([x.to(device, copy=True) for x in part] for part in state)
    for number, given in enumerate(gradients):
        steps = [torch.tensor(float(number), device=device if fused else "cpu") for _ in masters]
        rates = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "eps": 1e-8}
        there = [x.to(device) for x in given]
        adamw(masters, there, first, second, [], steps, foreach=not fused, fused=fused, amsgrad=False, maximize=False,
              **rates)  # fmt: skip
    return masters + first + second


def test_norms_of_gradients_are_the_plain_ones(backend: Backend) -> None:
    """By one operator for all of them; large and small beside each other."""
    torch.manual_seed(3)
    gradients = [scale * torch.randn(size) for scale, size in ((1e-6, 3), (1.0, 1000), (1e4, 129))]
    found = torch.stack(torch._foreach_norm([x.to(backend.device) for x in gradients])).cpu()
    wanted = torch.stack([x.double().norm() for x in gradients])
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0.0)
