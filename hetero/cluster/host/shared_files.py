"""What must be at hand on every host before its ranks start: the text, and folders that all of them share.

The agent's side; no Ray. A shipped file has no name on the disk, so nothing is left of it however its agent ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from typing import IO

from bridge.system.awake import AwakeClock
from hetero.checkpoint.address import Location, location_of, write_mark
from hetero.checkpoint.errors import CheckpointError
from hetero.cluster.control.instructions import HostOrder
from hetero.huggingface.errors import HfError
from hetero.huggingface.folder import HfFolder
from hetero.huggingface.hub import place
from hetero.words.orders import Configure

SEEN_WITHIN_S = 3.0
"""Network file systems show others' new files a little late."""


@dataclass(frozen=True)
class SharedFolder:
    """A folder that all hosts must reach. `marker` is a file in it; `written` says whether hosts write to it."""

    path: str
    marker: str
    written: bool


@dataclass(frozen=True)
class ModelFolder:
    """A model's directory that each host finds by its name; copies of one have its `fingerprint`."""

    named: str
    fingerprint: str


class ShippedFiles:
    """The files that were shipped to one agent, by the path that they have at the driver."""

    def __init__(self) -> None:
        self._files: dict[str, IO[bytes]] = {}

    def append(self, path: str, chunk: bytes) -> None:
        """The next piece of a file."""
        if path not in self._files:
            self._files[path] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        file = self._files[path]
        file.write(chunk)
        file.flush()

    def localized(self, order: HostOrder) -> HostOrder:
        """The order, with the text where this host's processes find it, if it was shipped."""
        if not (isinstance(order, Configure) and self._files.keys() & set(order.spec.text.files)):
            return order
        here = {path: f"/proc/{os.getpid()}/fd/{file.fileno()}" for path, file in self._files.items()}
        return Configure(order.spec.model_copy(update={"text": order.spec.text.moved(here)}))

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()


def reach(folder: SharedFolder, host: str) -> str | None:
    """Why this host cannot use the folder as the others do; None if it can."""
    path, clock = location_of(folder.path), AwakeClock()
    try:
        while not (path / folder.marker).exists():
            if clock.now() > SEEN_WITHIN_S:
                return "does not see what the driver wrote there" if path.is_dir() else "has no such folder"
            time.sleep(0.1)
        return _write(path / f"{folder.marker}-{host}") if folder.written else None
    except CheckpointError as error:
        return f"cannot use it: {error.rule}"


def compare(folder: ModelFolder) -> str | None:
    """Why this host has not the same directory as the driver; None if it has."""
    try:
        found = HfFolder(place(folder.named), folder.named).fingerprint
    except HfError as error:
        return error.rule
    return None if found == folder.fingerprint else "has another model there"


def _write(path: Location) -> str | None:
    try:
        write_mark(path)
        path.unlink()
    except OSError as error:
        return f"cannot write there ({error.strerror})"
    return None
