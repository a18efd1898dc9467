"""What somebody else's framework would do: ranks that share a bridge, and no more, move a tensor by its layouts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from bridge.layout.layout import TensorLayout
from bridge.layout.reshard import Placement, reshard
from bridge.options import BridgeOptions
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.transfer.flow import Flow
from hetero.transfer.native_messages import NativeMessages
from hetero.transfer.point_to_point import PointToPoint
from hetero.transfer.waits import Waits
from tests.contract.bridge_hosts import Host, link
from tests.patience import WAIT_S

SHAPE, TURNS, WINDOW = (6, 4), 3, 2
WHOLE = torch.arange(24.0).view(SHAPE)
COLUMNS = Placement(TensorLayout.split(SHAPE, 1, 2), (RankId("a", 0), RankId("a", 1)))
ROWS = Placement(TensorLayout.split(SHAPE, 0, 3), tuple(RankId("b", index) for index in range(3)))
BYTES = TURNS * WHOLE.nbytes


@pytest.fixture
def ports() -> Iterator[list[Port]]:
    a, b = Host("a@0", ["shm"]), Host("b@0", ["shm"])
    link(a, b, "shm")
    yield [(a if rank.pool == "a" else b).port(rank.index) for rank in (*COLUMNS.ranks, *ROWS.ranks)]
    for host in (a, b):
        host.close()


def _part(placement: Placement, me: RankId, turn: int) -> torch.Tensor:
    region = placement.layout.region(placement.ranks.index(me))
    return WHOLE[tuple(slice(*bounds) for bounds in region)] + turn


def _move(port: Port, told: list[Any]) -> int:
    """One rank's part in some turns; the bytes that it has sent."""
    me, backend = port.rank, CpuBackend()
    waits = Waits(backend)
    alone = NativeMessages(None, None, me.index, waits)
    messenger = PointToPoint(me, 0, backend, port, alone, waits, BridgeOptions(), lambda *what: told.append(what))
    shape = None if me in COLUMNS.ranks else ROWS.layout.local_shape(ROWS.ranks.index(me))
    flow = Flow(messenger, "activation", "x", [reshard(COLUMNS, ROWS)], [shape], torch.float32, WINDOW)
    flow.begin(TURNS)
    for turn in range(TURNS):
        flow.send_tensors([_part(COLUMNS, me, turn) if me in COLUMNS.ranks else None])
        (found,) = flow.receive_tensors()
        if me in ROWS.ranks:
            assert found is not None
            assert torch.equal(found, _part(ROWS, me, turn))
    flow.drain()
    messenger.close()
    return sum(crossed.nbytes for crossed in waits.sent.values())


def test_ranks_of_two_pools_move_a_tensor_by_layouts_alone(ports: list[Port]) -> None:
    told: list[Any] = []
    with ThreadPoolExecutor(len(ports)) as pool:
        ranks = [pool.submit(_move, port, told) for port in ports]
        assert sum(rank.result(WAIT_S) for rank in ranks) == BYTES, "each byte crosses once"
    assert not told
