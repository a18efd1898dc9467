"""The wire format: every frame is a fixed header of 64 bytes and a raw payload of `length` bytes.

    offset 0 magic "HB", 2 version, 3 kind, 4 epoch u32, 8 channel u64, 16 sequence u64, 24 offset u64, 32 total u64,
    40 checksum u64 (xxh3 of the payload), 48 sent_ns u64 (sender's clock), 56 length u32, 60 header check u32 (xxh32)

All integers are big-endian. A message longer than CHUNK_BYTES is cut into DATA frames that differ in `offset`.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

import xxhash

from bridge.errors import WireError

CHUNK_BYTES = 1 << 20  # the best size over zmq and grpc alike: smaller costs calls, larger costs page faults
HEADER_BYTES = 64
VERSION = 1

_MAGIC = b"HB"
_FIELDS = struct.Struct("!2sBBIQQQQQQI")
_CHECK = struct.Struct("!I")


class Kind(enum.IntEnum):
    """What a frame says; `sequence` means what the comment tells."""

    DATA = 1  # number of the message on its channel
    CREDIT = 2  # how many slots the receiver has posted since the channel was opened
    ACK = 3  # number of the message that has arrived whole
    HELLO = 4  # payload: the sender's endpoint id
    BYE = 5  # channel 0: the endpoint stops; else that end of the channel is gone. Payload: why
    ERROR = 6  # the channel is broken. Payload: why
    PING = 7
    PONG = 8  # the ping's sent_ns; offset: when the ping arrived


class Header(NamedTuple):
    kind: Kind
    epoch: int = 0
    channel: int = 0
    sequence: int = 0
    offset: int = 0
    total: int = 0
    checksum: int = 0
    sent_ns: int = 0
    length: int = 0

    def encode(self) -> bytes:
        """The 64 bytes that travel."""
        body = _FIELDS.pack(_MAGIC, VERSION, *self)
        return body + _CHECK.pack(xxhash.xxh32_intdigest(body))

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Header:
        """Reads `encode`'s bytes. Raises WireError if they are not that."""
        if len(data) != HEADER_BYTES:
            raise _bad("header length", len(data), f"a header has {HEADER_BYTES} bytes")
        magic, version, kind, *rest = _FIELDS.unpack_from(data)
        if magic != _MAGIC:
            raise _bad("magic", magic, f"a frame starts with {_MAGIC!r}")
        if version != VERSION:
            raise _bad("version", version, f"this build speaks version {VERSION}")
        if _CHECK.unpack_from(data, _FIELDS.size)[0] != xxhash.xxh32_intdigest(data[: _FIELDS.size]):
            raise _bad("header check", kind, "the header was damaged on its way")
        try:
            return cls(Kind(kind), *rest)
        except ValueError as error:
            raise _bad("kind", kind, f"one of {', '.join(Kind.__members__)}") from error


def checksum(payload: bytes | bytearray | memoryview) -> int:
    """xxh3_64 of a payload."""
    return xxhash.xxh3_64_intdigest(payload)


def text_frame(kind: Kind, text: str, epoch: int = 0, channel: int = 0) -> tuple[Header, memoryview]:
    """A frame that is no data but says something."""
    payload = text.encode()
    size = len(payload)
    header = Header(kind, epoch, channel, total=size, checksum=checksum(payload), length=size)
    return header, memoryview(payload)


def read_text(header: Header, payload: memoryview) -> str:
    """What `text_frame` was given. Raises WireError if it was damaged."""
    if checksum(payload) != header.checksum:
        raise _bad("checksum", header.checksum, f"a {header.kind.name} frame was damaged on its way")
    return bytes(payload).decode(errors="replace")


def _bad(key: str, value: object, rule: str) -> WireError:
    return WireError(f"frame.{key}", value, rule, "run the same release of hetero on all hosts, and check the network")
