"""One file of a source, as it was when it was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hetero.data.errors import DataError

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class TextFile:
    """`name` is its path below the source, parted by /. `size` is in bytes, and no more is ever read."""

    name: str
    path: Path
    size: int

    def pieces(self) -> Iterator[bytes]:
        """Its bytes in order. Raises DataError if it cannot be read, or its size is not what it was."""
        left = self.size
        try:
            with self.path.open("rb") as file:
                while piece := file.read(min(_CHUNK_BYTES, left + 1)):
                    if len(piece) > left:
                        raise self._changed("has grown")
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise unreadable(self.path, error) from None
        if left:
            raise self._changed("has shrunk")

    def _changed(self, how: str) -> DataError:
        rule = f"{how} while it was read, from {self.size:,} bytes"
        return DataError("data.source", str(self.path), rule, "name a text that nobody writes to meanwhile")


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that the system does not let us read."""
    remedy = "make it readable, or name another source"
    return DataError("data.source", str(path), f"cannot be read ({error.strerror})", remedy)
