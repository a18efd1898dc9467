"""Hosts that do not reach the folder of checkpoints save and go on all the same, by way of the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hetero.checkpoint.address import location_of
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.control.events import Event
from hetero.cluster.control.instructions import HostOrder
from hetero.cluster.fleet import HostSpec
from hetero.cluster.host.spool import FilePart
from hetero.cluster.onray.actors import HostActor
from hetero.cluster.onray.arrivals import Arrivals
from hetero.cluster.onray.shared_files import CHUNK_BYTES
from hetero.data.source import Prepared
from tests.distributed.fleet import Standing
from tests.distributed.replans import ADAMW, SMALL_SHARED

AWAY = ("ascend@0", "kunlun@0")
POLL_S = 0.05


class CarryingAgents:
    """What Ray's actors would run, in this process; those of `AWAY` reach no folder of the driver's."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._arrivals, self.parts = folder, Arrivals(location_of(str(folder))), 0
        self._actors: dict[str, HostActor] = {}

    def start(self, hosts: tuple[HostSpec, ...]) -> None:
        self._actors = {spec.id: HostActor(replace(spec, address="127.0.0.1")) for spec in hosts}
        for host in AWAY:
            self._actors[host].spool(str(self._folder))

    def bring(self, step: int) -> None:
        """The checkpoint of a step to them, to go on from."""
        for path in Path(str(CheckpointStore(self._folder).folder(step))).iterdir():
            data = path.read_bytes()
            for start in range(0, len(data), CHUNK_BYTES):
                for host in AWAY:
                    self._actors[host].append_saved(
                        str(self._folder), step, path.name, data[start : start + CHUNK_BYTES]
                    )

    def send(self, host: str, order: HostOrder) -> None:
        self._actors[host].send(order)

    def receive(self, timeout: float) -> list[Event]:
        return [event for actor in self._actors.values() for event in self._received(actor)]

    def _received(self, actor: HostActor) -> Iterator[Event]:
        sent: Sequence[Event | FilePart] = actor.events(POLL_S)
        self.parts += sum(isinstance(one, FilePart) for one in sent)
        yield from self._arrivals.received(sent)

    def close(self) -> None:
        for actor in self._actors.values():
            actor.close()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_saved_and_gone_on_from_to_the_bit(text: Prepared, fleet: Standing, tmp_path: Path) -> None:
    whole = fleet.train(ADAMW, SMALL_SHARED, until=4)
    agents, folder = CarryingAgents(tmp_path / "driver"), tmp_path / "driver"
    with Standing(text, tmp_path).up(agents) as carried:
        first = carried.train(ADAMW, SMALL_SHARED, until=2, save_to=folder)
        assert agents.parts >= len(AWAY)
        CheckpointStore(folder).verify(2)
        agents.bring(2)
        rest = carried.train(ADAMW, SMALL_SHARED, start=2, until=4, begin_from=folder)
    assert first.losses + rest.losses == whole.losses
    assert first.norms + rest.norms == whole.norms
