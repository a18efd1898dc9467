"""Llama-style decoders as units: embedding, then attention and MLP of each layer, then final norm and head."""

from __future__ import annotations

import math
from typing import ClassVar

from bridge.layout import LayoutError, TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.architecture import UnitSpec
from hetero.models.dimensions import Dimensions
from hetero.models.llama_workload import workload

EMBEDDING = "units.0.embedding.weight"
_STD = 0.02


class Llama:
    """RMSNorm, rotary positions, grouped-query attention, SwiGLU; head and embedding may share a weight."""

    builder: ClassVar[str] = "hetero.models.llama_units:build_unit"
    workload = staticmethod(workload)

    @staticmethod
    def units(dims: Dimensions) -> tuple[UnitSpec, ...]:
        layers = [
            UnitSpec(kind, f"layers.{layer}.{kind}") for layer in range(dims.layers) for kind in ("attention", "mlp")
        ]
        return (UnitSpec("embedding", "embedding"), *layers, UnitSpec("head", "head"))

    @staticmethod
    def legal_cuts(dims: Dimensions) -> frozenset[int]:
        return frozenset(range(2 * dims.layers + 2))

    @staticmethod
    def boundary(dims: Dimensions) -> dict[str, int]:
        return {"x_BTD": dims.hidden}

    @staticmethod
    def tied(dims: Dimensions) -> tuple[tuple[int, int], ...]:
        return ((0, 2 * dims.layers + 1),) if dims.tie_embeddings else ()

    @staticmethod
    def legal_tp(dims: Dimensions, tp: int) -> str | None:
        if tp > dims.heads or dims.heads % tp:
            return f"tp {tp} does not divide the {dims.heads} heads"
        if dims.kv_heads % tp and tp % dims.kv_heads:
            return f"of tp {tp} and the {dims.kv_heads} kv_heads, neither divides the other"
        if tp > min(dims.ffn, dims.vocab):
            return f"tp {tp} is larger than ffn ({dims.ffn}) or vocab ({dims.vocab})"
        return None

    @staticmethod
    def tensors(dims: Dimensions, unit: int, tp: int) -> dict[str, TensorSpec]:
        """LayoutError where tp is illegal; IndexError where there is no such unit."""
        reason = Llama.legal_tp(dims, tp)
        if reason:
            raise LayoutError("tp", tp, reason, "choose a tp that divides heads and kv_heads")
        kind = Llama.units(dims)[unit].kind
        return _TENSORS[kind](dims, f"units.{unit}.", tp)

    @staticmethod
    def parameter_count(dims: Dimensions) -> int:
        specs = {
            spec.name: spec for unit in range(2 * dims.layers + 2) for spec in Llama.tensors(dims, unit, 1).values()
        }
        return sum(math.prod(spec.layout.shape) for spec in specs.values())


def _embedding(dims: Dimensions, prefix: str, tp: int) -> dict[str, TensorSpec]:
    return {"embedding.weight": _vocab_weight(EMBEDDING, dims, tp)}


def _attention(dims: Dimensions, prefix: str, tp: int) -> dict[str, TensorSpec]:
    specs = {"norm.weight": _norm(prefix, dims, tp)}
    for name, heads in (("q", dims.heads), ("k", dims.kv_heads), ("v", dims.kv_heads)):
        width = heads * dims.head_dim
        weight = TensorLayout.split_heads((width, dims.hidden), 0, heads, tp, dims.head_dim)
        specs[f"{name}.weight"] = TensorSpec(f"{prefix}{name}.weight", weight, Normal(_STD))
        if dims.qkv_bias:
            bias = TensorLayout.split_heads((width,), 0, heads, tp, dims.head_dim)
            specs[f"{name}.bias"] = TensorSpec(f"{prefix}{name}.bias", bias, Constant(0.0))
    out = TensorLayout.split_heads((dims.hidden, dims.hidden), 1, dims.heads, tp, dims.head_dim)
    return {**specs, "o.weight": TensorSpec(f"{prefix}o.weight", out, _into_stream(dims))}


def _mlp(dims: Dimensions, prefix: str, tp: int) -> dict[str, TensorSpec]:
    specs = {"norm.weight": _norm(prefix, dims, tp)}
    for name in ("gate", "up"):
        layout = TensorLayout.split((dims.ffn, dims.hidden), 0, tp)
        specs[f"{name}.weight"] = TensorSpec(f"{prefix}{name}.weight", layout, Normal(_STD))
    down = TensorLayout.split((dims.hidden, dims.ffn), 1, tp)
    return {**specs, "down.weight": TensorSpec(f"{prefix}down.weight", down, _into_stream(dims))}


def _head(dims: Dimensions, prefix: str, tp: int) -> dict[str, TensorSpec]:
    name = EMBEDDING if dims.tie_embeddings else f"{prefix}head.weight"
    return {"norm.weight": _norm(prefix, dims, tp), "head.weight": _vocab_weight(name, dims, tp)}


def _norm(prefix: str, dims: Dimensions, tp: int) -> TensorSpec:
    return TensorSpec(f"{prefix}norm.weight", TensorLayout.replicated((dims.hidden,), tp), Constant(1.0))


def _vocab_weight(name: str, dims: Dimensions, tp: int) -> TensorSpec:
    return TensorSpec(name, TensorLayout.split((dims.vocab, dims.hidden), 0, tp), Normal(_STD))


def _into_stream(dims: Dimensions) -> Normal:
    """Projections that add to the residual stream start smaller, so that it does not grow with depth (GPT-2)."""
    return Normal(_STD / math.sqrt(2 * dims.layers))


_TENSORS = {"embedding": _embedding, "attention": _attention, "mlp": _mlp, "head": _head}
