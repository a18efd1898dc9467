"""What hosts send of their checkpoints, on the driver's disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hetero.checkpoint.address import Location
from hetero.checkpoint.arriving import append_part
from hetero.cluster.control.events import Event
from hetero.cluster.host.spool import FilePart, Outgoing


class Arrivals:
    """Into `root`, the folder of a run's checkpoints; None where all hosts reach it."""

    def __init__(self, root: Location | None = None) -> None:
        self.root = root

    def received(self, sent: Sequence[Outgoing]) -> Iterator[Event]:
        """Writes the parts among what a host has sent; the rest. Raises StorageFull."""
        for one in sent:
            if isinstance(one, FilePart):
                assert self.root is not None
                append_part(self.root, one.step, one.file, one.data, is_last=one.is_last)
            else:
                yield one
