"""Random tensors, cut in random ways over random ranks."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from bridge.layout.layout import TensorLayout
from bridge.layout.reshard import Placement
from bridge.rank import RankId
from tests.unit.bridge.layout.layouts import layouts

SHAPES = ((8,), (12, 4), (4, 8), (16, 3))


def ranks(pool: str, count: int) -> tuple[RankId, ...]:
    return tuple(RankId(pool, index) for index in range(count))


@st.composite
def placements(draw: st.DrawFn, shape: tuple[int, ...], pool: str) -> Placement:
    layout = draw(layouts(shape, 4))
    return Placement(layout, ranks(pool, layout.size))


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    """Every element another value."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


def shard(whole: torch.Tensor, layout: TensorLayout, position: int) -> torch.Tensor:
    return whole[tuple(slice(*bounds) for bounds in layout.region(position))].clone()


def part_of(whole: torch.Tensor, placement: Placement, rank: RankId) -> torch.Tensor | None:
    """What a rank holds of a tensor, None where it holds nothing."""
    region = placement.regions.get(rank)
    return None if region is None else whole[tuple(slice(*bounds) for bounds in region)].clone()
