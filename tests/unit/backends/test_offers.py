"""Offered operators: those that are right take the plain ones' places, all others are told with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from backends.offers import Offer, Operator, choose
from backends.operators import Operators, attention, swiglu

CPU = torch.device("cpu")
PLAIN = Operators()


def offered(operator: Operator, name: str = "swiglu") -> Operators:
    return choose((Offer(name, "the vendor's", lambda: operator),), CPU)


class _Fused(torch.autograd.Function):
    """A kernel for each way, as a vendor would have."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        sigmoid = gate.sigmoid()
        by_gate = gradients[0] * up * sigmoid * (1 + gate * (1 - sigmoid))
        return by_gate, gradients[0] * gate * sigmoid


class _Spoilt(_Fused):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        by_gate, by_up = _Fused.backward(ctx, *gradients)
        return by_gate, 0.99 * by_up


def _raises(*_: Tensor) -> Tensor:
    raise RuntimeError("no kernel image is available\nfor this chip")


def _narrow_only(gate: Tensor, up: Tensor) -> Tensor:
    return swiglu(gate, up) * (1.1 if gate.dtype == torch.float16 else 1.0)


def test_what_agrees_is_taken() -> None:
    fused = _Fused.apply
    table = offered(fused)
    assert table.own == {"swiglu": "the vendor's"}
    assert not table.refused
    assert table.swiglu is fused
    assert table.attention is attention
    assert str(table) == "operators of its own: swiglu (the vendor's)"


def test_types_are_tried_beforehand_and_not_again() -> None:
    calls: list[torch.dtype] = []

    def counted(gate: Tensor, up: Tensor) -> Tensor:
        calls.append(gate.dtype)
        return swiglu(gate, up)

    table = offered(counted)
    assert set(calls) == {torch.float32, torch.bfloat16, torch.float16}
    calls.clear()
    table.swiglu(torch.ones(1), torch.ones(1))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        (_raises, "no kernel image is available"),
        (lambda gate, up: functional.silu(up) * gate, "in float32 its result is off by "),
        (_Spoilt.apply, "in float32 its gradient 2 is off by 1.0e-02"),
        (_narrow_only, "in float16 its result is off by 1.0e-01"),
        (lambda gate, up: swiglu(gate, up).detach() + 0 * (gate + up), "in float32 its gradient 1 is off by 1.0e+00"),
        (lambda gate, up: swiglu(gate, up).float(), "in bfloat16 its result is (1, 7, 64) of torch.float32, not"),
        (lambda gate, up: swiglu(gate, up).sum(-1), "in float32 its result is (1, 7) of"),
        (lambda gate, up: swiglu(gate, up) / 0 * 0, "in float32 its result is off by nan"),
    ],
)
def test_what_does_not_agree_is_told_and_stays_plain(operator: Operator, reason: str) -> None:
    table = offered(operator)
    assert table.swiglu is swiglu
    assert not table.own
    assert table.refused["swiglu"].startswith(f"the vendor's: {reason}"), table.refused
    assert str(table).startswith("plain: swiglu (the vendor's: ")


def test_what_is_not_there_is_told() -> None:
    table = choose((Offer("swiglu", "silu_and_mul", lambda: torch.silu_and_mul),), CPU)  # type: ignore[attr-defined]
    assert table.refused == {"swiglu": "silu_and_mul: module 'torch' has no attribute 'silu_and_mul'"}


def test_a_type_that_the_chip_lacks_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks_bfloat16(plain: Operator) -> Callable[..., Tensor]:
        def run(gate: Tensor, up: Tensor) -> Tensor:
            if gate.dtype == torch.bfloat16:
                raise RuntimeError("not implemented for 'BFloat16'")
            return plain(gate, up)

        return run

    monkeypatch.setattr(Operators, "swiglu", staticmethod(lacks_bfloat16(swiglu)))
    assert offered(lacks_bfloat16(swiglu)).own


def test_a_table_of_plain_ones_says_so() -> None:
    assert str(PLAIN) == "all operators are plain torch"
