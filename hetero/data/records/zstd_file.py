"""A file compressed by Zstandard, read as a stream."""

from __future__ import annotations

import io
from types import ModuleType
from typing import IO, Any

_CHUNK_BYTES = 1 << 18


class ZstdDamaged(Exception):
    """What stands there was not made by Zstandard, or has changed since."""


class ZstdFile(io.RawIOBase):
    """Its bytes, of one frame after another. Reading raises EOFError where the file breaks off within a frame, of which
    the package's own reader says nothing, and ZstdDamaged."""

    def __init__(self, file: IO[bytes], zstandard: ModuleType) -> None:
        self._zstandard, self._file = zstandard, file
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not (chunk := self._file.read(_CHUNK_BYTES)):
                if self._frame is not None:
                    raise EOFError
                return 0
            self._ready = self._plain(chunk)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _plain(self, chunk: bytes) -> bytes:
        plain = []
        while chunk:
            self._frame = self._frame or self._zstandard.ZstdDecompressor().decompressobj()
            try:
                plain.append(self._frame.decompress(chunk))
            except self._zstandard.ZstdError as error:
                raise ZstdDamaged(str(error)) from None
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        return b"".join(plain)
