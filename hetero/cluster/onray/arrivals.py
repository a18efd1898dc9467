"""What hosts send of their checkpoints, on the driver's disk: whole files under their names, each part as it comes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hetero.checkpoint.address import Location
from hetero.checkpoint.durable import make_folder, publish, unfinished
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.control.events import Event
from hetero.cluster.host.spool import FilePart, Sent


class Arrivals:
    """Into `root`, the folder of a run's checkpoints; None where all hosts reach it."""

    def __init__(self, root: Location | None = None) -> None:
        self.root = root

    def received(self, sent: Sequence[Sent]) -> Iterator[Event]:
        """Writes the parts among what a host has sent; the rest. Raises StorageFull."""
        for one in sent:
            if isinstance(one, FilePart):
                self._write(one)
            else:
                yield one

    def _write(self, part: FilePart) -> None:
        if os.path.basename(part.file) != part.file:
            raise ValueError(f"a file of a checkpoint has a plain name, not {part.file!r}")
        assert self.root is not None
        path = Path(str(CheckpointStore(self.root).folder(part.step))) / part.file
        make_folder(path.parent)
        with unfinished(path) as temporary:
            with temporary.open("ab") as file:
                file.write(part.data)
            if part.is_last:
                publish(temporary, path)
