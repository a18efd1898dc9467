"""What makes the bytes of a connection trustworthy: a checksum, or encryption with a key of that connection alone."""

from __future__ import annotations

from abc import ABC, abstractmethod

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.port.copying import copy
from bridge.words.frame import CHUNK_BYTES, Header, checksum, wire_error

TAG_BYTES = 16
_NONCE_BYTES = 12
_BODY_BYTES = CHUNK_BYTES + TAG_BYTES  # fresh memory would cost as much as encryption, so most is used again


class Seal(ABC):
    """Sees every frame of a connection, in order, on its way out and on its way in."""

    @abstractmethod
    def apply(self, header: Header, payload: memoryview) -> tuple[bytes, memoryview]:
        """Head and body as they travel."""

    def reuse(self, body: memoryview) -> None:  # noqa: B027  # most bodies are payloads themselves
        """The peer has seen the frame of this body, so that nobody reads the body any more."""

    @abstractmethod
    def open_into(self, header: Header, head: memoryview, body: memoryview, place: memoryview | None) -> None:
        """Puts the payload into `place`, `header.length` bytes long; with None it is only examined.

        Raises WireError unless the frame is as the peer sent it. Then `place` may hold anything.
        """


class Unchecked(Seal):
    """Within one host the payload never leaves its memory, so a checksum would watch over a memcpy."""

    def apply(self, header: Header, payload: memoryview) -> tuple[bytes, memoryview]:
        return header.encode(), payload

    def open_into(self, header: Header, head: memoryview, body: memoryview, place: memoryview | None) -> None:
        _expect(body, header.length)
        if place is not None:
            copy(place, body)


class Checked(Seal):
    """Finds damage, not malice: xxh3 of the payload in the header."""

    def apply(self, header: Header, payload: memoryview) -> tuple[bytes, memoryview]:
        return header._replace(checksum=checksum(payload)).encode(), payload

    def open_into(self, header: Header, head: memoryview, body: memoryview, place: memoryview | None) -> None:
        _expect(body, header.length)
        if checksum(body) != header.checksum:
            raise wire_error("checksum", header.checksum, "the payload was damaged on its way")
        if place is not None:
            place[:] = body


class Encrypted(Seal):
    """AES-GCM over every frame: the payload is encrypted, and header and payload are authenticated together.

    The nonce counts the frames of one direction, and never travels: a frame that is missing, repeated or out of its
    place does not open. Either direction has a key of its own (16 bytes), new for each connection, so that no pair of
    key and nonce occurs twice. NIST SP 800-38D.
    """

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        self._ours, self._theirs = AESGCM(send_key), AESGCM(receive_key)
        self._sealed = self._opened = 0
        self._free: list[memoryview] = []

    def apply(self, header: Header, payload: memoryview) -> tuple[bytes, memoryview]:
        head, body = header.encode(), self._body(len(payload) + TAG_BYTES)
        self._ours.encrypt_into(_nonce(self._sealed), payload, head, body)
        self._sealed += 1
        return head, body

    def reuse(self, body: memoryview) -> None:
        if len(body) == _BODY_BYTES:
            self._free.append(body)

    def _body(self, nbytes: int) -> memoryview:
        if nbytes == _BODY_BYTES and self._free:
            return self._free.pop()
        return memoryview(bytearray(nbytes))

    def open_into(self, header: Header, head: memoryview, body: memoryview, place: memoryview | None) -> None:
        _expect(body, header.length + TAG_BYTES)
        if place is None:
            place = memoryview(bytearray(header.length))
        try:
            self._theirs.decrypt_into(_nonce(self._opened), body, head, place)
        except InvalidTag:
            rule = "it was not sealed by the peer, or not as the next frame"
            raise wire_error("seal", header.kind.name, rule) from None
        self._opened += 1


def _nonce(count: int) -> bytes:
    return count.to_bytes(_NONCE_BYTES, "big")


def _expect(body: memoryview, nbytes: int) -> None:
    if len(body) != nbytes:
        raise wire_error("length", len(body), f"the header says {nbytes}")
