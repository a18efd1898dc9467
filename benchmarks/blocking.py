"""Ranks whose sends over stage boundaries wait for delivery before computing goes on, as plain sends do.

`python -m benchmarks.exposed` runs them beside the engine's own, which differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import torch

from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine import wiring
from hetero.transfer.flow import Flow


class BlockingFlow(Flow):
    def send_tensors(self, tensors: Sequence[torch.Tensor | None]) -> None:
        super().send_tensors(tensors)
        self.drain()


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    with patch.object(wiring, "Flow", BlockingFlow):
        engine_rank.main(rank, agent, port)
