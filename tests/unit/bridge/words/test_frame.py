from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import WireError
from bridge.words.frame import HEADER_BYTES, VERSION, FrameKind, Header, checksum

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
HEADERS = st.builds(Header, st.sampled_from(FrameKind), U32, U64, U64, U64, U64, U64, U64, U64, U64, U32)


@given(HEADERS)
def test_a_header_reads_back_as_written(header: Header) -> None:
    data = header.encode()
    assert len(data) == HEADER_BYTES
    assert Header.decode(data) == Header.decode(memoryview(data)) == header


@given(HEADERS, st.integers(0, HEADER_BYTES * 8 - 1))
def test_any_flipped_bit_is_caught(header: Header, bit: int) -> None:
    data = bytearray(header.encode())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        Header.decode(bytes(data))


def test_the_format_is_pinned() -> None:
    data = Header(FrameKind.DATA, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10).encode()
    fields = "00000001" + "".join(f"{n:016x}" for n in range(2, 10)) + "0000000a"
    assert data[:76].hex() == b"HB".hex() + f"{VERSION:02x}01" + fields


@pytest.mark.parametrize("data", [b"", b"HB", bytes(HEADER_BYTES), b"x" * HEADER_BYTES])
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Header.decode(data)


def test_another_version_is_refused_by_name() -> None:
    data = bytearray(Header(FrameKind.BYE).encode())
    data[2] = VERSION + 1
    with pytest.raises(WireError, match=f"speaks version {VERSION}"):
        Header.decode(bytes(data))


def test_the_checksum_is_xxh3() -> None:
    assert checksum(b"") == 0x2D06800538D394C2
    assert checksum(memoryview(b"abc")) == checksum(b"abc") != checksum(b"abd")
