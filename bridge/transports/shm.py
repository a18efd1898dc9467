"""Frames between endpoints of one host: the heads travel over a socket, the bodies stay where they are.

A sender's rings are shown to the peer by descriptor, once; a body that lies in one of them is named by its place, and
the receiving endpoint copies it from there into the receiver's slot: one copy in all. What is said over the socket, one
packet each:

    head, INLINE, body     a body that lies in no ring, such as a text
    head, PLACED, ring, offset
    LEND, ring, slot_bytes, slots and the descriptor;  RECLAIM, ring

The socket's name is an abstract one, so that nothing is left behind. Anybody may connect to it; the system tells whose
process that is, and only those of our own user are talked to. Memory is taken of nobody before it has proved itself.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import functools
import os
import secrets
import socket
import struct
from collections import deque

from bridge.errors import PeerLost, TransportError, WireError
from bridge.port.slots import SlotRing
from bridge.system.linux import hand_over
from bridge.transports.transport import Admits, Connection, Credentials, FrameSink, Listener, Transport
from bridge.words.frame import EMPTY, HEADER_BYTES, MOST_TEXT_BYTES, Header, wire_error

_INLINE, _PLACED, _LEND, _RECLAIM = range(4)
_PLACE = struct.Struct("!BIQ")
_LENT = struct.Struct("!BIQI")
_RECLAIMED = struct.Struct("!BI")
_PACKET_BYTES = HEADER_BYTES + 1 + MOST_TEXT_BYTES + 64
_PACKETS_PER_TURN = 64


class ShmConnection(Connection):
    """Either end of a socket. Owns the socket, and what it has mapped of the peer's rings."""

    chunk_bytes = 16 << 20  # takes about a millisecond, of which a frame's own cost is a tenth
    shares_memory = True

    def __init__(self, transport: Transport, sink: FrameSink, peer: str, end: socket.socket) -> None:
        super().__init__(transport, sink, peer)
        self._socket = end
        self._queue: deque[tuple[list[bytes | memoryview], int]] = deque()  # packets and descriptors, or -1
        self._ours: dict[int, tuple[int, int]] = {}  # of the memory of each ring lent: number and address
        self._theirs: dict[int, SlotRing] = {}
        self._lent = 0
        self._trusted = False
        end.setblocking(False)
        self._loop.watch(end.fileno(), self._turn)

    # out

    def send_frame(self, head: bytes, body: memoryview) -> None:
        if not self.is_open:
            return
        if (known := self._ours.get(id(body.obj))) is None:
            self._queue.append(([head, bytes([_INLINE]), body], -1))
        else:
            number, start = known
            address = ctypes.addressof(ctypes.c_char.from_buffer(body)) if len(body) else start
            self._queue.append(([head, _PLACE.pack(_PLACED, number, address - start)], -1))
        self._flush()

    def lend(self, ring: SlotRing) -> None:
        if not self.is_open:
            return
        self._lent += 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(ring.buffer))
        self._ours[id(ring.buffer.obj)] = self._lent, start
        self._queue.append(([_LENT.pack(_LEND, self._lent, ring.slot_bytes, ring.slots)], os.dup(ring.fd)))
        self._flush()

    def reclaim(self, ring: SlotRing) -> None:
        if self.is_open and (known := self._ours.pop(id(ring.buffer.obj), None)):
            self._queue.append(([_RECLAIMED.pack(_RECLAIM, known[0])], -1))
            self._flush()

    def trust(self) -> None:
        self._trusted = True

    def release(self) -> None:
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
                self._loop.call_soon(functools.partial(self.lose, lost))
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
                hand_over(packet, fds, self._take)
                if not self.is_open:
                    return
        except BlockingIOError:
            self._flush()
        except WireError as error:
            self.lose(error)
        except ConnectionError:
            self.lose(PeerLost("peer", self.peer, "it closed the connection"))
        except (OSError, ValueError, KeyError, struct.error) as error:
            self.lose(wire_error("packet", self.peer, str(error)))

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
            self.lose(PeerLost("peer", self.peer, "it closed the connection"))
        elif not self._trusted and packet[HEADER_BYTES : HEADER_BYTES + 1] != bytes([_INLINE]):
            raise ValueError("it speaks of memory before it has proved itself")
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
        self._theirs[number] = ring = SlotRing.from_fd(os.dup(fd), slot_bytes, slots)
        ring.release_fd()

    def _placed(self, packet: memoryview) -> None:
        _, number, offset = _PLACE.unpack(packet[HEADER_BYTES:])
        ring = self._theirs.get(number)
        nbytes = Header.decode(packet[:HEADER_BYTES]).length
        if ring is None or offset + nbytes > len(ring.buffer):
            raise ValueError(f"there is no memory at {offset} of ring {number}")
        self._sink.on_frame(self, packet[:HEADER_BYTES], ring.buffer[offset : offset + nbytes] if nbytes else EMPTY)


class ShmListener(Listener):
    """Takes peers of the same user."""

    def __init__(self, transport: Transport, sink: FrameSink) -> None:
        self._transport, self._sink = transport, sink
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.uri = f"shm://hetero-{secrets.token_hex(8)}"
        self._socket.bind(_abstract(self.uri))
        self._socket.listen()
        self._socket.setblocking(False)
        transport.loop.watch(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            end, _ = self._socket.accept()
            if _is_ours(end):
                ShmConnection(self._transport, self._sink, f"a process at {self.uri}", end)
            else:
                end.close()

    def close(self) -> None:
        self._transport.loop.unwatch(self._socket.fileno())
        self._socket.close()


class ShmTransport(Transport):
    scheme = "shm"

    def listen(self, host: str, sink: FrameSink, admits: Admits) -> Listener:
        self.listeners.append(ShmListener(self, sink))
        return self.listeners[-1]

    def connect(self, uri: str, sink: FrameSink, credentials: Credentials) -> Connection:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            end.connect(_abstract(uri))
        except OSError as error:
            end.close()
            raise TransportError("uri", uri, str(error), "both endpoints must run on one host") from error
        if not _is_ours(end):
            end.close()
            raise TransportError("uri", uri, "another user's process listens there", "start the run anew")
        return ShmConnection(self, sink, uri, end)


def _is_ours(end: socket.socket) -> bool:
    """Whether a process of our own user made the other end."""
    _, uid, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.getuid())


def _abstract(uri: str) -> str:
    return "\0" + uri.partition("://")[2]
