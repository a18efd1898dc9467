"""Ranks whose model begins a rounding away from the engine's own: each weight times 1 + 2^-9 u, u from -1 to 1.

`python -m benchmarks.codecs` runs them beside the engine's own, which differ in nothing else: what that does to a loss
is what chance makes of any small difference.
"""

from __future__ import annotations

from unittest.mock import patch
from zlib import crc32

import torch

from bridge.layout.layout import Region
from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.state import origin
from hetero.layers import builder
from hetero.layers.spec import TensorSpec

LARGEST = 2.0**-9
"""What rounding to bfloat16 changes a value by, relatively, at most."""


def fill(parameter: torch.Tensor, spec: TensorSpec, region: Region, seed: int) -> None:
    """In place of the engine's own first values."""
    builder.fill(parameter, spec, region, seed)
    generator = torch.Generator().manual_seed(crc32(spec.name.encode()))
    u = torch.rand(parameter.shape, generator=generator).mul_(2).sub_(1)
    parameter.mul_(1 + LARGEST * u)


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(origin, "fill", fill):
        engine_rank.main(rank, agent, port)
