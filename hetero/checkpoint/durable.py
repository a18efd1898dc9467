"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from hetero.checkpoint.address import Location, StoreAddress
from hetero.checkpoint.errors import StorageFull
from hetero.errors import is_disk_full

CHUNK_BYTES = 1 << 20


def write_durably(path: Location, data: bytes) -> None:
    """Write or replace a file atomically; on return it is on the disk."""
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Location) -> Iterator[BinaryIO]:
    """A file that is whole and on the disk when the block ends, and has its name then. Raises StorageFull,
    StorageFailed."""
    if isinstance(path, StoreAddress):
        with path.writing() as file:
            yield file
        return
    with unfinished(path) as temporary:
        with temporary.open("wb") as file:
            yield file
        publish(temporary, path)


@contextlib.contextmanager
def file_in_place(path: Path, size_bytes: int) -> Iterator[int]:
    """The descriptor of a file of this size under its own name, other parts of which others write. Nothing is on the
    disk before `sync_files`. Raises StorageFull.

    It is never read: NFS would read whole pages, and write them back over what other hosts have written there."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.ftruncate(file, size_bytes)
        yield file
    except OSError as error:
        if is_disk_full(error):
            raise _full(path, error) from error
        raise
    finally:
        os.close(file)


def sync_files(folder: Path, files: Iterable[str]) -> None:
    """See that what was written of them is on the disk, and their names. Raises StorageFull."""
    for file in files:
        try:
            _sync(folder / file)
        except OSError as error:
            if is_disk_full(error):
                raise _full(folder / file, error) from error
            raise
    sync_folder(folder)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A name to write under before `publish`; nothing is left of it if that fails. Raises StorageFull."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise _full(path, error) from error
        raise


def _full(path: Path, error: Exception) -> StorageFull:
    rule = f"the disk is full, or a limit on file sizes is reached: {path.name} was not written ({error})"
    remedy = "make room or name another checkpoint.storage, then go on from the last checkpoint with --resume"
    return StorageFull("checkpoint.storage", str(path.parent), rule, remedy)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, its bytes first."""
    _sync(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def make_folder(path: Location) -> None:
    """Make a folder and its parents, and see that their names are on the disk."""
    if isinstance(path, StoreAddress):
        path.make()
        return
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def remove_tree(path: Location) -> None:
    """Remove a folder and all in it. One that someone else is removing too is no error."""
    if isinstance(path, StoreAddress):
        path.remove_tree()
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        shutil.rmtree(path)


def sync_folder(path: Location) -> None:
    if isinstance(path, Path):
        _sync(path, os.O_DIRECTORY)


def checksum(path: Location) -> str:
    """The xxh3-64 of a file, in hexadecimal."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path, flags: int = 0) -> None:
    handle = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
