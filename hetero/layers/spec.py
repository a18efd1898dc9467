"""What a logical tensor is, without torch: its name, how a group's ranks hold it, and its first values."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.layout.layout import TensorLayout


@dataclass(frozen=True)
class Normal:
    """Normally distributed first values around zero."""

    std: float


@dataclass(frozen=True)
class Constant:
    """One first value for all elements."""

    value: float


@dataclass(frozen=True)
class TensorSpec:
    """One logical tensor of the model; `name` is the same under every plan. One that does not train stays as it is.

    `by_rows` is whether it is used on the stream outside of split parts, of which a sequence-parallel stage gives a
    rank rows alone.
    """

    name: str
    layout: TensorLayout
    initial: Normal | Constant
    trains: bool = True
    by_rows: bool = False


@dataclass(frozen=True)
class AdapterSpec:
    """What is added to a product with a weight: `scale` (x A^T) B^T, A as (rank, in), B as (out, rank)."""

    a: TensorSpec
    b: TensorSpec
    scale: float
