"""A file of a checkpoint that comes in parts: it has its name once all of it is there and on the disk."""

from __future__ import annotations

import os

from hetero.checkpoint.address import Location, StoreAddress
from hetero.checkpoint.durable import make_folder, publish, unfinished
from hetero.checkpoint.store import CheckpointStore


def append_part(root: Location, step: int, file: str, data: bytes, *, is_last: bool) -> None:
    """The next bytes of a file of a step, in the folder `root` of a run's checkpoints. Raises StorageFull, ValueError
    for a name that is none of a file there."""
    if os.path.basename(file) != file or file in ("", ".", ".."):
        raise ValueError(f"a file of a checkpoint has a plain name, not {file!r}")
    folder = CheckpointStore(root).folder(step)
    assert not isinstance(folder, StoreAddress)
    make_folder(folder)
    with unfinished(folder / file) as temporary:
        with temporary.open("ab") as opened:
            opened.write(data)
        if is_last:
            publish(temporary, folder / file)
