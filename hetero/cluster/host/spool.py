"""Checkpoints of a host that does not reach their folder: its ranks write to its own disk, and from there all goes to
the driver in parts. A few of them are in memory at a time, and what has left is removed.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from bridge.words.error import ErrorReport
from hetero.checkpoint.durable import remove_tree
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.control.events import Event, PiecesSaved, Severity, Trouble
from hetero.cluster.control.instructions import HostOrder
from hetero.cluster.private_folder import private_folder
from hetero.words.orders import Configure

PART_BYTES, MOST_PARTS = 16 * 1024**2, 2


@dataclass(frozen=True)
class FilePart:
    """The next bytes of a file of the checkpoint of a step."""

    step: int
    file: str
    data: bytes
    is_last: bool


Outgoing = Event | FilePart


class Spool:
    """Of one host. `put` takes what goes to the driver, in order, and `taken` says how much of it has left."""

    def __init__(self, host: str, put: Callable[[list[Outgoing]], None], part_bytes: int = PART_BYTES) -> None:
        self._host, self._put, self._part_bytes = host, put, part_bytes
        self._folder = private_folder()
        self._places: dict[str, str] = {}
        self._carried: CheckpointStore | None = None
        self._saved: SimpleQueue[tuple[CheckpointStore, PiecesSaved] | None] = SimpleQueue()
        self._room = threading.BoundedSemaphore(MOST_PARTS)
        self._thread = threading.Thread(target=self._send, name="spool", daemon=True)
        self._thread.start()

    def stand_for(self, place: str) -> None:
        """Ranks that are told to write to `place`, or to read from it, do so here."""
        self._places[place] = str(self._folder / f"{len(self._places)}")

    def localized(self, order: HostOrder) -> HostOrder:
        """The order, with the folders that this host has instead."""
        if not isinstance(order, Configure):
            return order
        told = {
            name: self._places.get(getattr(order.spec, name) or "") for name in ("checkpoint_folder", "resume_folder")
        }
        here = {name: place for name, place in told.items() if place}
        folder = here.get("checkpoint_folder")
        self._carried = CheckpointStore(folder) if folder else None
        return Configure(order.spec.model_copy(update=here))

    def append(self, place: str, step: int, file: str, chunk: bytes) -> None:
        """The next bytes of a file that ranks will read."""
        folder = Path(str(CheckpointStore(self._places[place]).folder(step)))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("ab") as opened:
            opened.write(chunk)

    def deliver(self, events: Sequence[Event]) -> None:
        """A save that lies here is told of when its files have left; all else at once."""
        others: list[Outgoing] = []
        for event in events:
            if isinstance(event, PiecesSaved) and self._carried is not None:
                self._saved.put((self._carried, event))
            else:
                others.append(event)
        if others:
            self._put(others)

    def taken(self, sent: Sequence[Outgoing]) -> None:
        """These have left this process."""
        for one in sent:
            if isinstance(one, FilePart):
                self._room.release()

    def close(self) -> None:
        self._saved.put(None)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self) -> None:
        while (next_one := self._saved.get()) is not None:
            store, saved = next_one
            folder = Path(str(store.folder(saved.step)))
            try:
                for piece in saved.pieces:
                    self._send_file(folder / piece.file, saved.step)
                remove_tree(folder)  # and what nobody sends
                self._put([saved])
            except OSError as error:
                cause = f"cannot send what was saved: {error}"
                self._put(
                    [Trouble(self._host, "agent", Severity.OWN_ERROR, cause, error=ErrorReport.of(error).plain())]
                )

    def _send_file(self, path: Path, step: int) -> None:
        for part in _parts(path, step, self._part_bytes):
            self._room.acquire()
            self._put([part])
        path.unlink()


def _parts(path: Path, step: int, part_bytes: int) -> Iterator[FilePart]:
    with path.open("rb") as file:
        data = file.read(part_bytes)
        while data:
            following = file.read(part_bytes)
            yield FilePart(step, path.name, data, is_last=not following)
            data = following
