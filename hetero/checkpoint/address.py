"""A file or folder of a store that fsspec reaches by an address, as `s3://bucket/runs`. Torch-free.

Such stores often have neither folders nor a way to rename: a file is whole once it is closed, and a checkpoint exists
once its manifest does, which is written last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from hetero.checkpoint.errors import CheckpointError, StorageFailed
from hetero.paths import scheme_of

KEY = "checkpoint.storage"


class StoreAddress:
    """What is asked of a `Path`, of a store. Nothing touches the store before it must."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip("/")

    def __truediv__(self, name: str) -> StoreAddress:
        return StoreAddress(f"{self._text}/{name}")

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreAddress) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    @property
    def name(self) -> str:
        return self._text.rpartition("/")[2]

    @property
    def parent(self) -> StoreAddress:
        return StoreAddress(self._text.rpartition("/")[0])

    def exists(self) -> bool:
        self._system.invalidate_cache()
        with self._explained("cannot be read"):
            return bool(self._system.exists(self._path))

    def is_dir(self) -> bool:
        with self._explained("cannot be read"):
            return bool(self._system.isdir(self._path))

    def size(self) -> int | None:
        """Of a file; None where there is none."""
        self._system.invalidate_cache()
        try:
            with self._explained("cannot be read"):
                found = self._system.info(self._path)
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def iterdir(self) -> Iterator[StoreAddress]:
        """Asks the store anew. A folder that is not there has nothing in it."""
        self._system.invalidate_cache()
        with self._explained("cannot be listed"), contextlib.suppress(FileNotFoundError):
            names = self._system.ls(self._path, detail=False)
            yield from (self / str(name).rstrip("/").rpartition("/")[2] for name in names)

    def make(self) -> None:
        with self._explained("cannot be made"):
            self._system.makedirs(self._path, exist_ok=True)

    def unlink(self) -> None:
        with self._explained("cannot be removed"), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._path)

    def remove_tree(self) -> None:
        with self._explained("cannot be removed"), contextlib.suppress(FileNotFoundError):
            self._system.rm(self._path, recursive=True)

    def open(self, mode: str = "rb") -> BinaryIO:
        """To read. Raises FileNotFoundError, and what the store does."""
        file: BinaryIO = self._system.open(self._path, mode)
        return file

    @contextlib.contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """A new file, there when the block ends and not before, as far as the store can. Raises StorageFailed."""
        with self._explained("was not written"):
            file: Any = self._system.open(self._path, "wb", autocommit=False)
            try:
                yield file
            except BaseException:
                with contextlib.suppress(Exception):
                    file.discard()
                raise
            file.close()
            if hasattr(file, "commit"):
                file.commit()

    @cached_property
    def _system(self) -> Any:
        """Raises CheckpointError where the package for such a store is missing."""
        import fsspec

        scheme = scheme_of(self._text)
        try:
            return fsspec.url_to_fs(self._text)[0]
        except ImportError as error:
            rule = f"what reaches a store of {scheme} is not installed here ({error})"
            remedy = "install it for the driver and for the ranks, or name a folder that all hosts mount"
            raise CheckpointError(KEY, self._text, rule, remedy) from error
        except Exception as error:
            remedy = "see how fsspec writes such addresses, and where it finds their credentials"
            raise CheckpointError(KEY, self._text, f"the store cannot be reached ({error})", remedy) from error

    @property
    def _path(self) -> str:
        return str(self._system._strip_protocol(self._text))

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Whatever a store's own package raises becomes StorageFailed."""
        try:
            yield
        except (FileNotFoundError, CheckpointError):
            raise
        except Exception as error:
            remedy = "see that the store can be reached and written, then go on from the last checkpoint with --resume"
            told = f"{what} ({type(error).__name__}: {error})"
            raise StorageFailed(KEY, self._text, told, remedy) from error


Location: TypeAlias = Path | StoreAddress
"""Where something lies: on a file system, or in a store."""


def location_of(text: str) -> Location:
    """What an absolute path or an address names."""
    return StoreAddress(text) if scheme_of(text) else Path(text)


def write_mark(location: Location) -> None:
    """A file that says nothing but that it can be written. Raises OSError, StorageFailed."""
    if isinstance(location, Path):
        location.touch()
        return
    with location.writing() as file:
        file.write(b"may be removed")
