"""A low-rank adapter beside one product of a part: its tensors and its work. Torch-free; `hetero/layers/adapter.py` has
its module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.parts.part import PartWork


@dataclass(frozen=True)
class Adapter:
    """Adds `scale` (x A^T) B^T to x W^T; A is (rank, in), B (out, rank)."""

    rank: int
    scale: float

    def tensors(self, weight: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
        """A and B, beside a weight (out, in) as its ranks hold it. Where these have some of its outputs, each has all
        of A and those rows of B; where they have some of its inputs, the other way round, and B's result is summed with
        that of the weight. Either way a rank makes a share of the gradient of what it has whole.

        A begins as far from zero as PEFT's does, at random, and B at zero."""
        out, width = weight.layout.shape
        a, b = adapter_names(weight.name)
        return (
            TensorSpec(a, _factor(weight.layout, 1, (self.rank, width)), Normal(1 / math.sqrt(3 * width))),
            TensorSpec(b, _factor(weight.layout, 0, (out, self.rank)), Constant(0.0)),
        )

    def work(self, weight: TensorSpec, seq_len: int, size: int) -> PartWork:
        """x A^T is kept, whole on every rank; backward has its gradient, and for a while a second gradient of x, as
        forward has a second result. Pairs are of both products; the weight's own part has x and the result."""
        out, width = weight.layout.shape
        flops, narrow = 2.0 * seq_len * self.rank * (out + width), seq_len * size * self.rank
        return PartWork(
            forward_flops=flops,
            kept=TpBytes(whole=narrow),
            forward_bytes=seq_len * size * out,
            backward=TpBytes(whole=seq_len * size * width + narrow),
            weight_flops=flops,
            pairs=TpBytes(whole=2 * narrow),
        )


def adapter_names(weight: str) -> tuple[str, str]:
    """Those of A and B."""
    stem = weight.removesuffix(".weight")
    return f"{stem}.lora_a", f"{stem}.lora_b"


def is_adapter(name: str) -> bool:
    """Whether a tensor, by its logical name or that within its unit, is one of the two."""
    return name.endswith((".lora_a", ".lora_b"))


def _factor(weight: TensorLayout, shared: int, shape: tuple[int, int]) -> TensorLayout:
    """The factor that has dimension `shared` of the weight, where its ranks have of it what they have of the weight."""
    other = 1 - shared
    bounds = [None if region is None else region[shared] for region in weight.regions]
    whole = (0, shape[other])
    regions = tuple(None if found is None else ((whole, found) if shared else (found, whole)) for found in bounds)
    is_cut_elsewhere = len({region[other] for region in weight.regions if region is not None}) > 1
    gradients: Literal["equal", "summed"] = "summed" if is_cut_elsewhere else weight.gradients
    return TensorLayout(shape, regions, gradients)
