"""Operators of a family's own, and the proof that they may take the plain ones' places.

What a vendor's stack has depends on its version, and what it gives on the chip. So each operator that a family offers
is tried on small samples when a chip's operators are first asked for, which is before the first step: it must exist,
run forward and backward, and agree with plain torch on the same chip. What does not stays plain, with one reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from backends.attention_mask import AttentionMask
from backends.operators import Operators

Operator = Callable[..., Any]
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""By norm, of results and gradients. A type that the chip's plain operator refuses is not asked for."""


@dataclass(frozen=True)
class Offer:
    """One for the table's `operator`; `source` names what computes it. `load` gives it, or raises what says why not."""

    operator: str
    source: str
    load: Callable[[], Operator]


@dataclass(frozen=True)
class Sample:
    """Arguments of an operator: `inputs` it has gradients by, and then `rest`, whose tensors it has none by."""

    inputs: tuple[Tensor, ...]
    rest: tuple[Any, ...] = ()

    def to(self, device: torch.device, dtype: torch.dtype) -> Sample:
        """A copy, laid out in memory like this one."""
        rest = (x.to(device, dtype) if isinstance(x, Tensor) else x for x in self.rest)
        return Sample(tuple(x.detach().to(device, dtype) for x in self.inputs), tuple(rest))


@cache
def choose(offers: tuple[Offer, ...], device: torch.device) -> Operators:
    """The plain table, but for each offer that proves itself on the device; tried once in a process."""
    found: dict[str, Operator] = {}
    own, refused = {}, {}
    for offer in offers:
        try:
            operator = offer.load()
            fault = fault_of(offer.operator, operator, device)
        except Exception as error:  # a name that is missing, a compiler, a kernel: whatever a vendor's stack raises
            fault = str(error).strip().partition("\n")[0] or type(error).__name__
        if fault:
            refused[offer.operator] = f"{offer.source}: {fault}"
        else:
            found[offer.operator], own[offer.operator] = operator, offer.source
    return Operators(**found, own=own, refused=refused)


def fault_of(name: str, own: Operator, device: torch.device) -> str:
    """In what it differs from the plain one, over all samples and types; empty if in nothing. Raises what it raises."""
    plain, own = (as_function(name, operator) for operator in (getattr(Operators, name), own))
    for dtype, tolerance in TOLERANCES.items():
        for sample in samples(name):
            here = sample.to(device, dtype)
            try:
                wanted = outcome(plain, here)
            except RuntimeError:
                continue
            if fault := _differs(outcome(own, here), wanted, tolerance):
                return f"in {str(dtype).removeprefix('torch.')} {fault}"
    return ""


def as_function(name: str, operator: Operator) -> Operator:
    """The operator, or where it writes into a sum in float32, what it makes of threes."""
    if name != "add_product":
        return operator

    def sums(gradient_NE: Tensor, x_ND: Tensor) -> Tensor:
        total_ED = x_ND.new_full((gradient_NE.size(1), x_ND.size(1)), 3.0, dtype=torch.float32)
        operator(total_ED, gradient_NE.detach(), x_ND.detach())
        return total_ED

    return sums


def outcome(operator: Operator, sample: Sample) -> tuple[Tensor, ...]:
    """The result, and a gradient by each input, zeros where there is none."""
    inputs = [x.detach().requires_grad_() for x in sample.inputs]
    with torch.inference_mode(False), torch.enable_grad():
        result = operator(*inputs, *sample.rest)
        total: Any = (result.float() * _weights(result)).sum()
        if total.requires_grad:
            total.backward()
    return result.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in inputs)


def samples(name: str) -> list[Sample]:
    """On the host, in float32, as modules hand them over: heads are a view of the projections' results. No two sizes
    of one are alike, lest a compiler take them for the same in all."""
    made = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made)

    def heads(batch: int, length: int, count: int, size: int) -> Tensor:
        return normal(batch, length, count, size).transpose(1, 2)

    angles_TK, angles_B1TK = (normal(7, 8) * 3).repeat(1, 2), (normal(2, 1, 7, 8) * 3).repeat(1, 1, 1, 2)
    documents_BT = torch.tensor([[0, 0, 0, 0, 1, 2, 2, 2, 2], [3, 4, 4, 4, 4, 4, 4, 5, 5]])
    return {
        "rms_norm": lambda: [Sample((3 * normal(b, 7, 64), normal(64)), (1e-5,)) for b in (1, 2)],
        "offset_rms_norm": lambda: [Sample((3 * normal(b, 7, 64), normal(64)), (1e-5,)) for b in (1, 2)],
        "layer_norm": lambda: [Sample((3 * normal(b, 7, 64), normal(64), normal(64)), (1e-5,)) for b in (1, 2)],
        "geglu": lambda: [Sample((normal(b, 7, 64), normal(b, 7, 64)), ("tanh",)) for b in (1, 2)],
        "gelu": lambda: [Sample((normal(b, 7, 64),), ("tanh",)) for b in (1, 2)],
        "rotary": lambda: [Sample((heads(b, 7, 4, 16),), (angles.cos(), angles.sin()))
                           for b, angles in ((1, angles_TK), (2, angles_TK), (2, angles_B1TK))],
        "attention": lambda: [Sample((heads(b, 9, 4, 16), heads(b, 9, g, 16), heads(b, 9, g, 16)))
                              for b, g in ((1, 4), (2, 2))],
        "masked_attention": lambda: [
            Sample((heads(b, 9, 4, 16), heads(b, 9, g, 16), heads(b, 9, g, 16)), (AttentionMask(documents, window),))
            for b, g, documents, window in ((1, 4, None, 3), (2, 2, documents_BT, None), (2, 4, documents_BT, 3))
        ],
        "swiglu": lambda: [Sample((normal(b, 7, 64), normal(b, 7, 64))) for b in (1, 2)],
        "add_product": lambda: [Sample((normal(7, 16), normal(7, 24)))],
    }[name]()  # fmt: skip


def _weights(result: Tensor) -> Tensor:
    """By which the results are summed up, so that each has a gradient of its own."""
    place = torch.arange(result.numel(), device=result.device, dtype=torch.float32)
    return torch.cos(place).view(result.shape)


def _differs(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float) -> str:
    names = ("its result", *(f"its gradient {number}" for number in range(1, len(wanted))))
    for name, own, plain in zip(names, found, wanted, strict=True):
        if (own.shape, own.dtype) != (plain.shape, plain.dtype):
            return f"{name} is {tuple(own.shape)} of {own.dtype}, not {tuple(plain.shape)} of {plain.dtype}"
        off, whole = (own.float() - plain.float()).norm().item(), plain.float().norm().item()
        if not off <= tolerance * whole:
            return f"{name} is off by {off / (whole or 1.0):.1e}"
    return ""
