"""Ranks whose model begins a rounding away from the engine's own: each weight times 1 + 2^-9 u, u from -1 to 1.

`python -m benchmarks.codecs` runs them beside the engine's own, which differ in nothing else: what that does to a loss
is what chance makes of any small difference.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch
from zlib import crc32

import torch

from bridge.pipe import Pipe
from bridge.port import Port
from bridge.rank import RankId
from hetero.engine import epoch
from hetero.engine import rank as engine_rank
from hetero.engine.stage import Stage

LARGEST = 2.0**-9
"""What rounding to bfloat16 changes a value by, relatively, at most."""


class PerturbedStage(Stage):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, parameter in self.parameters.items():
            generator = torch.Generator().manual_seed(crc32(name.encode()))
            u = torch.rand(parameter.shape, generator=generator).mul_(2).sub_(1)
            with torch.no_grad():
                parameter.mul_(1 + LARGEST * u)


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(epoch, "Stage", PerturbedStage):
        engine_rank.main(rank, agent, port)
