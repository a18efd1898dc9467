"""Frames between endpoints of one host: the heads travel over a socket, the bodies stay where they are.

A sender's rings are shown to the peer by descriptor, once; a body that lies in one of them is named by its place, and
the receiving endpoint copies it from there into the receiver's slot: one copy in all. What is said over the socket, one
packet each:

    head, INLINE, body     a body that lies in no ring, such as a text
    head, PLACED, ring, offset
    LEND, ring, slot_bytes, slots and the descriptor;  RECLAIM, ring

The socket's name is an abstract one, so that nothing is left behind.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import functools
import os
import secrets
import socket
import struct
from collections import deque

from bridge.errors import BridgeError, PeerLost, TransportError, WireError
from bridge.loop import Loop
from bridge.slots import SlotRing
from bridge.transport import Connection, Listener, Sink, Transport
from bridge.wire import EMPTY, HEADER_BYTES, MOST_TEXT_BYTES, Header, wire_error

_INLINE, _PLACED, _LEND, _RECLAIM = range(4)
_PLACE = struct.Struct("!BIQ")
_LENT = struct.Struct("!BIQI")
_RECLAIMED = struct.Struct("!BI")
_PACKET_BYTES = HEADER_BYTES + 1 + MOST_TEXT_BYTES + 64
_PACKETS_PER_TURN = 64


class ShmConnection(Connection):
    """Either end of a socket. Owns the socket, and what it has mapped of the peer's rings."""

    chunk_bytes = 16 << 20  # copied past the caches, as smaller ones are not, in about a millisecond
    shares_memory = True

    def __init__(self, end: socket.socket, loop: Loop, sink: Sink, peer: str) -> None:
        self.peer, self._socket, self._loop, self._sink = peer, end, loop, sink
        self._open = True
        self._queue: deque[tuple[list[bytes | memoryview], int]] = deque()  # packets and descriptors, or -1
        self._ours: dict[int, tuple[int, int]] = {}  # of the memory of each ring lent: number and address
        self._theirs: dict[int, SlotRing] = {}
        self._lent = 0
        end.setblocking(False)
        loop.watch(end.fileno(), self._turn)

    # out

    def send(self, head: bytes, body: memoryview) -> None:
        if not self._open:
            return
        if (known := self._ours.get(id(body.obj))) is None:
            self._queue.append(([head, bytes([_INLINE]), body], -1))
        else:
            number, start = known
            address = ctypes.addressof(ctypes.c_char.from_buffer(body)) if len(body) else start
            self._queue.append(([head, _PLACE.pack(_PLACED, number, address - start)], -1))
        self._flush()

    def lend(self, ring: SlotRing) -> None:
        if not self._open:
            return
        self._lent += 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(ring.buffer))
        self._ours[id(ring.buffer.obj)] = self._lent, start
        self._queue.append(([_LENT.pack(_LEND, self._lent, ring.slot_bytes, ring.slots)], os.dup(ring.fd)))
        self._flush()

    def reclaim(self, ring: SlotRing) -> None:
        if self._open and (known := self._ours.pop(id(ring.buffer.obj), None)):
            self._queue.append(([_RECLAIMED.pack(_RECLAIM, known[0])], -1))
            self._flush()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for _, fd in self._queue:
            if fd >= 0:
                os.close(fd)
        for ring in self._theirs.values():
            ring.close()

    def _flush(self) -> None:
        while self._queue:
            packet, fd = self._queue[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
            try:
                self._socket.sendmsg(packet, rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except ConnectionError:  # reading finds what the peer said last, and then that it is gone
                return
            except OSError as error:
                lost = PeerLost("peer", self.peer, str(error))
                self._loop.call_soon(functools.partial(self._lose, lost))
                return
            self._queue.popleft()
            if fd >= 0:
                os.close(fd)
        self._loop.watch(self._socket.fileno(), self._turn, writable=bool(self._queue))

    # in

    def _turn(self) -> None:
        try:
            for _ in range(_PACKETS_PER_TURN):
                packet, fds = self._packet()
                self._take(packet, fds)
                if not self._open:
                    return
        except BlockingIOError:
            self._flush()
        except WireError as error:
            self._lose(error)
        except ConnectionError:
            self._lose(PeerLost("peer", self.peer, "it closed the connection"))
        except (OSError, ValueError, KeyError, struct.error) as error:
            self._lose(wire_error("packet", self.peer, str(error)))

    def _packet(self) -> tuple[memoryview, list[int]]:
        packet = _PACKET_BYTES, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        try:
            data, ancillary, _, _ = self._socket.recvmsg(*packet)
        except ConnectionResetError:  # told once, before what the peer said last
            data, ancillary, _, _ = self._socket.recvmsg(*packet)
        fds = [fd for _, _, value in ancillary for fd in memoryview(value[: len(value) // 4 * 4]).cast("i")]
        return memoryview(data), fds

    def _take(self, packet: memoryview, fds: list[int]) -> None:
        if not packet:
            self._lose(PeerLost("peer", self.peer, "it closed the connection"))
        elif packet[0] == _LEND and fds:
            self._map(packet, fds[0])
        elif packet[0] == _RECLAIM:
            self._theirs.pop(_RECLAIMED.unpack(packet)[1]).close()
        elif len(packet) <= HEADER_BYTES:
            raise ValueError("it is too short")
        elif packet[HEADER_BYTES] == _PLACED:
            self._placed(packet)
        else:
            self._sink.on_frame(self, packet[:HEADER_BYTES], packet[HEADER_BYTES + 1 :])

    def _map(self, packet: memoryview, fd: int) -> None:
        _, number, slot_bytes, slots = _LENT.unpack(packet)
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            os.close(fd)
            raise ValueError("its memory may shrink while it is read")
        self._theirs[number] = SlotRing.from_fd(fd, slot_bytes, slots)
        self._theirs[number].release_fd()

    def _placed(self, packet: memoryview) -> None:
        _, number, offset = _PLACE.unpack(packet[HEADER_BYTES:])
        ring = self._theirs.get(number)
        nbytes = Header.decode(packet[:HEADER_BYTES]).length
        if ring is None or offset + nbytes > len(ring.buffer):
            raise ValueError(f"there is no memory at {offset} of ring {number}")
        self._sink.on_frame(self, packet[:HEADER_BYTES], ring.buffer[offset : offset + nbytes] if nbytes else EMPTY)

    def _lose(self, error: BridgeError) -> None:
        if self._open:
            self.close()
            self._sink.on_lost(self, error)


class ShmListener(Listener):
    """Takes peers of the same user."""

    def __init__(self, loop: Loop, sink: Sink) -> None:
        self._loop, self._sink = loop, sink
        self.connections: list[ShmConnection] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.uri = f"shm://hetero-{secrets.token_hex(8)}"
        self._socket.bind(_abstract(self.uri))
        self._socket.listen()
        self._socket.setblocking(False)
        loop.watch(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            end, _ = self._socket.accept()
            _, uid, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.getuid():
                end.close()
                return
            self.connections.append(ShmConnection(end, self._loop, self._sink, f"a process at {self.uri}"))

    def close(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()


class ShmTransport(Transport):
    scheme = "shm"

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._listeners: list[ShmListener] = []
        self._connections: list[ShmConnection] = []

    def listen(self, host: str, sink: Sink) -> Listener:
        self._listeners.append(ShmListener(self.loop, sink))
        return self._listeners[-1]

    def connect(self, uri: str, sink: Sink) -> Connection:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            end.connect(_abstract(uri))
        except OSError as error:
            end.close()
            raise TransportError("uri", uri, str(error), "both endpoints must run on one host") from error
        self._connections.append(ShmConnection(end, self.loop, sink, uri))
        return self._connections[-1]

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for connection in (*self._connections, *(one for each in self._listeners for one in each.connections)):
            connection.close()


def _abstract(uri: str) -> str:
    return "\0" + uri.partition("://")[2]
