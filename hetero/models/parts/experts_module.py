"""Experts with this rank's part of them.

Shapes: B sequences, T positions, D hidden, N = B * T tokens, C chosen, E experts, X of this rank, M = tokens times
experts that this rank computes, F inner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.dispatch import Dispatch
from hetero.layers.dispatched import DispatchedLinear
from hetero.layers.linear import Linear
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.experts import ClampedGate, Experts
from hetero.models.parts.projected_module import ProjectedModule
from hetero.models.parts.routing_module import RouterModule, Routes


class ExpertsModule(ProjectedModule):
    """x_BTD -> (B, T, D), whole on every rank; where the stage is sequence-parallel, both are this rank's rows. The sum
    over the ranks is one, however many slices a stage asks for."""

    def __init__(self, builder: Builder, part: Experts, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.router = RouterModule(builder, part.routing, specs)
        weights = {name: specs[f"experts.{name}.weight"] for name in ("gate", "up", "down")}
        biases = {name: specs.get(f"experts.{name}.bias") for name in ("gate", "up")}
        self.gate, self.up = (DispatchedLinear(builder, weights[name], bias) for name, bias in biases.items())
        self.down = DispatchedLinear(builder, weights["down"])
        self.bias = _WeightedBias(builder, specs["experts.down.bias"]) if part.bias else None
        self.shared = _SharedExpert(builder, part, specs) if part.shared_ffn else None
        self._range = weights["gate"].layout.region(builder.group.rank)[0]
        self._group, self._weight_gradients = builder.group, builder.weight_gradients
        self._clamped, self._swiglu = part.clamped, builder.operators.swiglu

    def inner(self, x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        x_BTD = self._group.copy_in(x_BTD, self._weight_gradients.flush)
        shared_BTD = None if self.shared is None else self.shared(x_BTD)
        routes = self.router(x_BTD, batch)
        y_BTD = self._routed(x_BTD, routes)
        if self.bias is not None:
            y_BTD = self.bias(y_BTD, routes)
        return y_BTD if shared_BTD is None else y_BTD.add_(shared_BTD)

    def outer(self, y: torch.Tensor) -> torch.Tensor:
        return self._group.reduce_out(y)

    def _routed(self, x_BTD: torch.Tensor, routes: Routes) -> torch.Tensor:
        """What this rank's part of the experts gives."""
        x_ND = x_BTD.flatten(0, 1)
        dispatch = _dispatch(routes, self._range, x_ND.dtype)
        h_MF = self._gated(self.gate(x_ND, dispatch), self.up(x_ND, dispatch))
        return self.down.back(h_MF, dispatch, x_BTD.shape)

    def _gated(self, gate_MF: torch.Tensor, up_MF: torch.Tensor) -> torch.Tensor:
        if self._clamped is None:
            return self._swiglu(gate_MF, up_MF)
        return cast(torch.Tensor, _Clamped.apply(gate_MF, up_MF, self._clamped))


def _dispatch(routes: Routes, experts: tuple[int, int], dtype: torch.dtype) -> Dispatch:
    """To the experts of a half-open range. The host waits for the chip, to know the counts."""
    begin, end = experts
    expert_M, chosen = routes.experts_NC.flatten(), routes.experts_NC.shape[1]
    counts = torch.bincount(expert_M, minlength=end).tolist()
    first, count = sum(counts[:begin]), sum(counts[begin:end])
    order_M = expert_M.argsort(stable=True)[first : first + count].clone()
    weight_M = routes.weights_NC.flatten().index_select(0, order_M).to(dtype)
    return Dispatch(order_M // chosen, weight_M, tuple(counts[begin:end]))


class _WeightedBias(ShardedModule):
    """Adds to y_BTD the last biases of a token's experts, times its weights: those that this rank holds."""

    bias_XS: torch.Tensor

    def __init__(self, builder: Builder, spec: TensorSpec) -> None:
        super().__init__()
        self.hold("bias_XS", spec, builder.parameter(spec))
        self._experts, self._columns = spec.layout.region(builder.group.rank)
        self._count = spec.layout.shape[0]

    def forward(self, y_BTD: torch.Tensor, routes: Routes) -> torch.Tensor:
        weight_NE = routes.weights_NC.new_zeros(len(routes.weights_NC), self._count)
        weight_NX = weight_NE.scatter(-1, routes.experts_NC, routes.weights_NC)[:, slice(*self._experts)]
        added_NS = weight_NX.to(y_BTD.dtype) @ self.bias_XS
        begin, end = self._columns
        left_right = begin, y_BTD.shape[-1] - end
        return y_BTD.add_(torch.nn.functional.pad(added_NS, left_right).view_as(y_BTD))


class _Clamped(torch.autograd.Function):
    """As `ClampedGate` says, of which only what was given is kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, clamped: ClampedGate) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.clamped = clamped
        gate, up = gate.clamp(max=clamped.limit), up.clamp(-clamped.limit, clamped.limit).add_(1)
        return (gate * clamped.alpha).sigmoid_().mul_(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (gate, up), gradient, alpha, limit = ctx.saved_tensors, gradients[0], ctx.clamped.alpha, ctx.clamped.limit
        bounded = gate.clamp(max=limit)
        sigmoid = (bounded * alpha).sigmoid_()
        dgate = (1 - sigmoid).mul_(bounded).mul_(alpha).add_(1).mul_(sigmoid).mul_(gradient).mul_(gate <= limit)
        dup = sigmoid.mul_(bounded).mul_(gradient).mul_(up.abs() <= limit)
        return dgate.mul_(bounded.copy_(up).clamp_(-limit, limit).add_(1)), dup, None


class _SharedExpert(torch.nn.Module):
    """x_BTD -> this rank's part of (B, T, D)."""

    def __init__(self, builder: Builder, part: Experts, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.gate, self.up, self.down = (Linear(builder, specs[f"shared.{n}.weight"]) for n in ("gate", "up", "down"))
        self.weight = Linear(builder, specs["shared.weight.weight"]) if part.shared_gate else None
        self._swiglu = builder.operators.swiglu

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        y_BTD = self.down(self._swiglu(self.gate(x_BTD), self.up(x_BTD)))
        return y_BTD if self.weight is None else self.weight(x_BTD).sigmoid() * y_BTD
