"""Random tensors, cut in random legal ways over random ranks."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from bridge.layout.layout import TensorLayout
from bridge.layout.reshard import Placement
from bridge.rank import RankId

SHAPES = ((8,), (12, 4), (4, 8), (16, 3))


def ranks(pool: str, count: int) -> tuple[RankId, ...]:
    return tuple(RankId(pool, index) for index in range(count))


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...], most: int = 4) -> TensorLayout:
    """Whole, split (evenly or not), or split into heads with replicas."""
    size = draw(st.integers(1, most))
    kinds = ["whole", "split", "heads"] if size in (2, 4) else ["whole", "split"]
    kind = draw(st.sampled_from(kinds))
    if kind == "whole":
        return TensorLayout.replicated(shape, size)
    dim = draw(st.sampled_from([dim for dim, extent in enumerate(shape) if extent >= size]))
    if kind == "split" or shape[dim] % 2:
        return TensorLayout.split(shape, dim, size)
    return TensorLayout.split_heads(shape, dim, 2, size, shape[dim] // 2)


@st.composite
def placements(draw: st.DrawFn, shape: tuple[int, ...], pool: str) -> Placement:
    layout = draw(layouts(shape))
    return Placement(layout, ranks(pool, layout.size))


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    """Every element another value."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


def shard(whole: torch.Tensor, layout: TensorLayout, position: int) -> torch.Tensor:
    return whole[tuple(slice(*bounds) for bounds in layout.region(position))].clone()
