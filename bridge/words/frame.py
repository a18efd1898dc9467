"""The wire format: every frame is a fixed header of 80 bytes and a body that carries `length` bytes of payload.

    offset 0 magic "HB", 2 version, 3 kind, 4 epoch u32, 8 channel u64, 16 sequence u64, 24 offset u64, 32 total u64,
    40 checksum u64 (xxh3 of the payload), 48 sent_ns u64 (sender's clock), 56 number u64, 64 seen u64, 72 length u32,
    76 header check u32 (xxh32)

All integers are big-endian. A message is cut into DATA frames that differ in `offset`. The body is the payload as it
is, or, on a sealed connection, its AES-GCM ciphertext and tag, which vouch for the header too (bridge/trust/seal.py).
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

import xxhash

from bridge.errors import WireError

EMPTY = memoryview(bytearray())
MOST_TEXT_BYTES = 1 << 16
CHUNK_BYTES = 1 << 20  # the best size over zmq and grpc alike: smaller costs calls, larger costs page faults
MOST_BODY_BYTES = CHUNK_BYTES + 16  # over a network: a chunk and its seal
HEADER_BYTES = 80
VERSION = 2

_MAGIC = b"HB"
_FIELDS = struct.Struct("!2sBBIQQQQQQQQI")
_CHECK = struct.Struct("!I")


class FrameKind(enum.IntEnum):
    """What a frame says; `sequence` means what the comment tells."""

    # numbered: delivered exactly once and in order, whatever becomes of the connection
    DATA = 1  # number of the message on its channel
    CREDIT = 2  # how many slots the receiver has posted since the channel was opened
    ACK = 3  # number of the message that has arrived whole
    BYE = 4  # that end of the channel is gone. Payload: why
    ERROR = 5  # the channel is broken. Payload: why
    PROBE = 6  # to be thrown away: a link is being measured
    # of the connection itself
    HELLO = 16  # payload: who speaks (bridge/trust/hello.py)
    READY = 17  # sealed with the key that both HELLOs give: whoever sends it is who he says
    PING = 18  # number: of the next numbered frame
    PONG = 19  # sequence: the ping's sent_ns; offset: when the ping arrived
    SEEN = 20  # nothing but `seen`
    CUT = 21  # this connection is over; dial again. Payload: why
    STOP = 22  # the endpoint stops

    @property
    def is_bulk(self) -> bool:
        """Whether the payload may be longer than a text."""
        return self in (FrameKind.DATA, FrameKind.PROBE)

    @property
    def numbered(self) -> bool:
        return self < FrameKind.HELLO


class Header(NamedTuple):
    """`number` counts the numbered frames of one direction of a stream; `seen` is the number that its sender expects
    next from the other direction."""

    kind: FrameKind
    epoch: int = 0
    channel: int = 0
    sequence: int = 0
    offset: int = 0
    total: int = 0
    checksum: int = 0
    sent_ns: int = 0
    number: int = 0
    seen: int = 0
    length: int = 0

    def encode(self) -> bytes:
        """The 80 bytes that travel."""
        body = _FIELDS.pack(_MAGIC, VERSION, *self)
        return body + _CHECK.pack(xxhash.xxh32_intdigest(body))

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Header:
        """Reads `encode`'s bytes. Raises WireError if they are not that."""
        if len(data) != HEADER_BYTES:
            raise wire_error("header length", len(data), f"a header has {HEADER_BYTES} bytes")
        magic, version, kind, *rest = _FIELDS.unpack_from(data)
        if magic != _MAGIC:
            raise wire_error("magic", magic, f"a frame starts with {_MAGIC!r}")
        if version != VERSION:
            raise wire_error("version", version, f"this build speaks version {VERSION}")
        if _CHECK.unpack_from(data, _FIELDS.size)[0] != xxhash.xxh32_intdigest(data[: _FIELDS.size]):
            raise wire_error("header check", kind, "the header was damaged on its way")
        try:
            return cls(FrameKind(kind), *rest)
        except ValueError as error:
            raise wire_error("kind", kind, f"one of {', '.join(FrameKind.__members__)}") from error


class Frame(NamedTuple):
    """What a stream carries. The payload must stay as it is until the peer has seen the frame."""

    header: Header
    payload: memoryview = EMPTY

    @property
    def nbytes(self) -> int:
        return HEADER_BYTES + self.header.length


def checksum(payload: bytes | bytearray | memoryview) -> int:
    """xxh3_64 of a payload."""
    return xxhash.xxh3_64_intdigest(payload)


def text_frame(kind: FrameKind, text: str, epoch: int = 0, channel: int = 0) -> Frame:
    """A frame that is no data but says something, cut after MOST_TEXT_BYTES."""
    payload = text.encode()[:MOST_TEXT_BYTES]
    return Frame(Header(kind, epoch, channel, total=len(payload), length=len(payload)), memoryview(payload))


def read_text(payload: memoryview) -> str:
    """What `text_frame` was given."""
    return bytes(payload).decode(errors="replace")


def wire_error(key: str, value: object, rule: str) -> WireError:
    """An error about `frame.key`."""
    return WireError(f"frame.{key}", value, rule, "run the same release of hetero on all hosts, and check the network")
