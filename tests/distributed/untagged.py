"""Ranks whose collective library knows no tags, as the vendors' ones: messages of a pair match in order alone."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from backends.cpu import CpuBackend
from bridge.pipe import Pipe
from bridge.port import Port
from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.flow import Carriers


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs in place of the engine's own main."""
    untagged = replace(CpuBackend.capabilities, tagged_p2p=False)
    with patch.object(CpuBackend, "capabilities", untagged), patch.object(Carriers, "_tag", lambda carriers, lane: 0):
        engine_rank.main(rank, agent, port)
