"""Normalisation of each position's vector: every rank does all of them or, where the stage is sequence-parallel, those
of its own rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from balancer.cost.workload import TpBytes
from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class RMSNorm(Part):
    """x / rms(x) * weight; `eps` is added to the mean square. With an `offset`, 1 + weight is in the weight's place.
    `name` begins its tensors', of which a unit has each once."""

    module: ClassVar[str] = "hetero.models.parts.norm_module:RMSNormModule"

    hidden: int
    eps: float
    offset: bool = False
    name: str = "norm"

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        first = Constant(0.0 if self.offset else 1.0)
        layout = TensorLayout.replicated((self.hidden,), tp)
        return (TensorSpec(f"{self.name}.weight", layout, first, by_rows=True),)

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are its input in float32 (which may be the input itself), that times the scale (in float32 where the
        weight has an offset), and the scale; backward has four float32 arrays of its input's size at once."""
        scaled = 4 if self.offset else size
        return PartWork(
            kept=TpBytes(whole=seq_len * (self.hidden * (4 + scaled) + 4)),
            from_input_bytes=seq_len * self.hidden * size,
            backward=TpBytes(whole=4 * 4 * seq_len * self.hidden),
        )


@dataclass(frozen=True)
class LayerNorm(Part):
    """(x - mean) / deviation * weight + bias, if it has one."""

    module: ClassVar[str] = "hetero.models.parts.norm_module:LayerNormModule"

    hidden: int
    eps: float
    bias: bool = True
    name: str = "norm"

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        layout = TensorLayout.replicated((self.hidden,), tp)
        weight = TensorSpec(f"{self.name}.weight", layout, Constant(1.0), by_rows=True)
        return (weight, TensorSpec(f"{self.name}.bias", layout, Constant(0.0), by_rows=True))[: 1 + self.bias]

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are its input, and mean and deviation in float32."""
        return PartWork(
            kept=TpBytes(whole=seq_len * (self.hidden * size + 8)),
            from_input_bytes=seq_len * self.hidden * size,
            backward=TpBytes(whole=seq_len * self.hidden * size),
        )
