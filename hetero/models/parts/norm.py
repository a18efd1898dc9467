"""Normalisation of each position's vector: every rank does all of them or, where the stage is sequence-parallel, those
of its own rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, TensorSpec
from hetero.models.parts.part import Part, PartWork


@dataclass(frozen=True)
class RMSNorm(Part):
    """x / rms(x) * weight; `eps` is added to the mean square."""

    module: ClassVar[str] = "hetero.models.parts.norm_module:RMSNormModule"
    by_rows: ClassVar[bool] = True

    hidden: int
    eps: float

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        return (TensorSpec("norm.weight", TensorLayout.replicated((self.hidden,), tp), Constant(1.0)),)

    def work(self, seq_len: int, size: int) -> PartWork:
        """Kept are its input in float32 (which may be the input itself), that times the scale, and the scale; backward
        has four float32 arrays of its input's size at once."""
        return PartWork(
            whole_bytes=seq_len * (self.hidden * (4 + size) + 4),
            from_input_bytes=seq_len * self.hidden * size,
            whole_backward_bytes=4 * 4 * seq_len * self.hidden,
        )
