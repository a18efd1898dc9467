"""Takes the plain files out of an archive that somebody else made, and nothing else. Pure files; no Ray.

A cluster may be in the hands of others, so nothing of `tarfile`'s own extraction is used: headers are read one by one,
names must be plain paths below the folder, links and devices are passed over, and what the archive unpacks to is
bounded while it is unpacked.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
CHUNK_BYTES = 1 << 20
MOST_FILES = 20_000
LONGEST_NAME = 1024
DEEPEST = 20


class Refused(ValueError):
    """The archive is damaged, or not what a run directory makes."""


class TooMuch(ValueError):
    """The archive unpacks to more than is allowed."""


def unpack(archive: bytes, folder: Path, most_bytes: int) -> list[PurePosixPath]:
    """Write the plain files of a gzipped tar into a new, empty folder; returns their names below it.

    Raises Refused, TooMuch, OSError; what was written before stays in the folder."""
    written: list[PurePosixPath] = []
    with gzip.GzipFile(fileobj=io.BytesIO(archive)) as stream:
        try:
            for name, source in _members(_Bounded(stream, most_bytes)):
                if len(written) >= MOST_FILES:
                    raise TooMuch(f"{MOST_FILES} files")
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.writelines(source)
                written.append(name)
        except (tarfile.TarError, UnicodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Refused(str(error)) from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise Refused(f"two files have one place: {error.filename}") from error
    return written


def plain_name(text: str) -> PurePosixPath:
    """A path below a folder. Raises Refused for one that leads elsewhere, or is none that a run gives."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Refused(f"{text[:200]!r} leads out of the folder")
    if len(text) > LONGEST_NAME or len(path.parts) > DEEPEST or not text.isprintable():
        raise Refused(f"{text[:200]!r} is no name of a run's file")
    return path


class _Bounded:
    """Reads whole pieces of a stream, and no more than `most` bytes of it in all."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, most: int) -> None:
        self._stream, self._most, self._left = stream, most, most

    def require(self, size: int) -> None:
        """Raises TooMuch where a file of this size would go beyond."""
        if size > self._left:
            raise TooMuch(f"{self._most / 2**30:g} GiB")

    def read(self, size: int) -> bytes:
        self.require(size)
        pieces = []
        while size > 0:
            if not (piece := self._stream.read(size)):
                raise EOFError("it ends in the middle")
            pieces.append(piece)
            size -= len(piece)
            self._left -= len(piece)
        return b"".join(pieces)

    def pieces(self, size: int) -> Iterator[bytes]:
        """So many bytes, and what fills them up to a block, which is dropped."""
        self.require(size)
        filling = -size % BLOCK
        while size > 0:
            piece = self.read(min(size, CHUNK_BYTES))
            size -= len(piece)
            yield piece
        self.read(filling)


def _members(stream: _Bounded) -> Iterator[tuple[PurePosixPath, Iterator[bytes]]]:
    """Name and content of each plain file, in the form of GNU tar."""
    long_name: str | None = None
    while (block := stream.read(BLOCK)) != bytes(BLOCK):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        if header.size < 0:
            raise Refused("a file of less than nothing")
        if header.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _long_name(stream, header.size)
            continue
        if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not header.name.endswith("/"):
            yield plain_name(long_name or header.name), stream.pieces(header.size)
        else:
            for _ in stream.pieces(header.size if header.type not in _WITHOUT_CONTENT else 0):
                pass
        long_name = None


_WITHOUT_CONTENT = (
    tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
)  # fmt: skip


def _long_name(stream: _Bounded, size: int) -> str:
    if size > LONGEST_NAME + 1:
        raise Refused("a name that is too long")
    return b"".join(stream.pieces(size)).rstrip(b"\0").decode("utf-8", "surrogateescape")
