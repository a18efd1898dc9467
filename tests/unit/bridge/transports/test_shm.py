"""What a process of the same user may do to an endpoint's memory before it has proved itself: nothing."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from bridge.errors import BridgeError, TransportError
from bridge.port.slots import SlotRing
from bridge.system.loop import Loop
from bridge.transports import shm
from bridge.transports.shm import ShmTransport
from bridge.transports.transport import Connection, Credentials
from bridge.words.frame import FrameKind, Header

LEND = struct.pack("!BIQI", 2, 1, 64, 4)
INLINE = Header(FrameKind.HELLO).encode() + b"\0"
PLACED = Header(FrameKind.DATA).encode() + struct.pack("!BIQ", 1, 1, 0)


class Listening:
    """A listener whose loop turns once for each thing that comes; it is the Sink too."""

    def __init__(self) -> None:
        self.loop, self.heard, self.lost = Loop(), list[Connection](), list[BridgeError]()
        self.transport = ShmTransport(self.loop)
        self.uri = self.transport.listen("", self, lambda claim, proof: False).uri  # type: ignore[arg-type]

    def on_frame(self, connection: Connection, head: memoryview, body: memoryview) -> None:
        self.heard.append(connection)

    def on_lost(self, connection: Connection, error: BridgeError) -> None:
        self.lost.append(error)

    def turn(self, times: int = 3) -> None:
        """What has come is taken."""
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop._stopped = False
            self.loop.run()

    def connect(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.connect(shm._abstract(self.uri))
        self.turn()
        return end


@pytest.fixture
def listening() -> Iterator[Listening]:
    one = Listening()
    yield one
    one.transport.close()
    one.loop.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("packet", [LEND, PLACED, struct.pack("!BI", 3, 1)], ids=["lend", "placed", "reclaim"])
def test_a_stranger_shows_no_memory(packet: bytes, listening: Listening) -> None:
    ring, before = SlotRing(64, 4), descriptors()
    with listening.connect() as end:
        socket.send_fds(end, [packet], [ring.fd])
        listening.turn()
        assert "before it has proved itself" in listening.lost[0].rule
    assert descriptors() == before
    ring.close()


def test_descriptors_that_nobody_asked_for_are_closed(listening: Listening) -> None:
    ring = SlotRing(64, 4)
    with listening.connect() as end:
        before = descriptors()
        for _ in range(10):
            socket.send_fds(end, [INLINE], [ring.fd])
            listening.turn()
        assert descriptors() == before
        assert len(listening.heard) == 10
        listening.heard[0].trust()
        socket.send_fds(end, [LEND], [ring.fd])
        end.send(PLACED)
        listening.turn()
        assert descriptors() == before
    assert len(listening.heard) == 11
    ring.close()


def test_other_users_are_not_talked_to_on_either_side(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm.os, "getuid", lambda: -1)
    with listening.connect() as end:
        assert end.recv(1) == b""
    with pytest.raises(TransportError, match="another user"):
        listening.transport.connect(listening.uri, listening, Credentials("", ""))  # type: ignore[arg-type]
    assert listening.transport.connections == set()
