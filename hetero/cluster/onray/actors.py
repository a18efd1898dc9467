"""Agents as Ray actors: one for each pool on each host. No torch is imported in them."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError

from bridge.system.awake import AwakeClock
from hetero.cluster.control.events import Event, Severity, Trouble
from hetero.cluster.control.instructions import HostOrder
from hetero.cluster.fleet import FleetSpec, HostSpec
from hetero.cluster.host.agent import POLL_S, Agent, drained
from hetero.cluster.host.shared_files import ModelFolder, SharedFolder, ShippedFiles, compare, reach
from hetero.cluster.host.spool import Outgoing, Spool
from hetero.cluster.onray.arrivals import Arrivals
from hetero.cluster.onray.pulse import Pulse
from hetero.cluster.onray.reservation import Reservation, reserved
from hetero.cluster.onray.shared_files import Folder, Needs, prepare
from hetero.monitoring.notice import Notice

ACTOR: dict[str, Any] = {"num_cpus": 0.01, "max_restarts": 0, "concurrency_groups": {"events": 1}}
CLOSING_S = 10.0


@contextlib.contextmanager
def ray_agents(fleet: FleetSpec, needs: Needs, on_event: Callable[[Notice], None]) -> Iterator[RayAgents]:
    """Agents for a fleet: on a cluster in a place that is theirs until the end, else on this machine.

    Raises PlacementError if the cluster has no such place; waits, and tells so, while others use it."""
    if fleet.local:
        yield RayAgents()
        return
    with reserved(fleet, on_event) as reservation:
        yield RayAgents(reservation, needs)


class HostActor:
    """Runs one Agent. Orders and events have a thread each, so that waiting for events delays no order."""

    def __init__(self, spec: HostSpec) -> None:
        self._host = spec.id
        self._events: queue.SimpleQueue[list[Outgoing]] = queue.SimpleQueue()
        self._files = ShippedFiles()
        self._spool: Spool | None = None
        self._agent = Agent(_settled(spec), self._deliver)

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def append(self, path: str, chunk: bytes) -> None:
        """The next piece of a file that this host lacks."""
        self._files.append(path, chunk)

    def reach(self, folder: SharedFolder, host: str) -> tuple[str, str | None]:
        """The machine, and why it cannot use a shared folder."""
        return socket.gethostname(), reach(folder, host)

    def compare(self, model: ModelFolder) -> tuple[str, str | None]:
        """The machine, and why it has not the driver's model."""
        return socket.gethostname(), compare(model)

    def spool(self, place: str) -> None:
        """This host does not reach the checkpoints of `place`: they go by way of the driver."""
        self._spool = self._spool or Spool(self._host, self._events.put)
        self._spool.stand_for(place)

    def append_saved(self, place: str, step: int, file: str, chunk: bytes) -> None:
        """The next piece of a file of a checkpoint that this host does not reach."""
        assert self._spool is not None
        self._spool.append(place, step, file, chunk)

    def send(self, order: HostOrder) -> None:
        order = self._files.localized(order)
        self._agent.send(self._spool.localized(order) if self._spool else order)

    @ray.method(concurrency_group="events")
    def events(self, timeout: float) -> list[Outgoing]:
        """What has happened since the last call, after at most `timeout` seconds."""
        sent = drained(self._events, timeout)
        if self._spool is not None:
            self._spool.taken(sent)
        return sent

    def close(self) -> None:
        self._agent.close()
        self._files.close()
        if self._spool is not None:
            self._spool.close()

    def _deliver(self, events: list[Event]) -> None:
        if self._spool is not None:
            self._spool.deliver(events)
        else:
            self._events.put([*events])


def _settled(spec: HostSpec) -> HostSpec:
    """The spec with what only its node knows; on a machine of its own a run has nothing to ask."""
    if spec.address is not None:
        return spec
    assigned = {name: tuple(ids) for name, ids in ray.get_runtime_context().get_accelerator_ids().items()}
    return replace(spec, address=ray.util.get_node_ip_address(), assigned=assigned)


@dataclass
class _Listening:
    """The one outstanding call for a host's events."""

    host: str
    since: float
    patience_s: float


class RayAgents:
    """Carries orders and events over Ray. Ray must be up; see ray_runtime.

    With a reservation the agents take its places on a cluster, and get what `needs` says; without one they run on this
    machine, where nothing has to be shipped.
    """

    def __init__(self, reservation: Reservation | None = None, needs: Needs | None = None) -> None:
        self._reservation, self._needs = reservation, needs or Needs()
        self._actors: dict[str, Any] = {}
        self._specs: dict[str, HostSpec] = {}
        self._calls: dict[Any, _Listening] = {}
        self._clock = AwakeClock()
        self._pulse: Pulse | None = None
        self._arrivals = Arrivals()
        self.notes: tuple[str, ...] = ()

    @property
    def carries_checkpoints(self) -> bool:
        """Whether they come by way of here from hosts that do not reach their folder."""
        return self._arrivals.root is not None

    def start(self, hosts: tuple[HostSpec, ...]) -> None:
        """Asks for all actors at once. One that does not start is heard of from `receive`.

        Raises ClusterError if a host does not reach a folder that all share."""
        self._pulse = Pulse()
        actor: Any = ray.remote(**ACTOR)(HostActor)
        for spec in hosts:
            self._specs[spec.id] = spec
            place = self._reservation.options(spec.id) if self._reservation else {}
            self._actors[spec.id] = actor.options(**place).remote(spec)
        if self._reservation:
            away = prepare(self._actors, self._needs, max(spec.patience.start_s for spec in hosts))
            self.notes = tuple(_by_way_of_here(folder, names) for folder, names in away.items())
            self._arrivals = Arrivals(*(folder.path for folder in away if folder.proof is None))
        for spec in hosts:
            self._listen(spec.id, spec.patience.start_s)

    def send(self, host: str, order: HostOrder) -> None:
        self._actors[host].send.remote(order)

    def receive(self, timeout: float) -> list[Event]:
        ray_is_gone = self._pulse.look() if self._pulse else []
        calls = list(self._calls)
        if not calls:
            time.sleep(timeout)
            return list(ray_is_gone)
        ready, _ = ray.wait(calls, num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        events = [event for call in ready for event in self._heard(call)]
        return [*ray_is_gone, *events, *self._unheard()]

    def close(self) -> None:
        """Lets all agents end their processes, then ends the agents."""
        self._calls.clear()
        endings = [actor.close.remote() for actor in self._actors.values()]
        if endings:
            ray.wait(endings, num_returns=len(endings), timeout=CLOSING_S)
        for actor in self._actors.values():
            ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._pulse is not None:
            self._pulse.close()
            self._pulse = None

    def _listen(self, host: str, patience_s: float) -> None:
        call = self._actors[host].events.remote(POLL_S)
        self._calls[call] = _Listening(host, self._clock.now(), patience_s)

    def _heard(self, call: Any) -> list[Event]:
        host = self._calls.pop(call).host
        try:
            sent: list[Outgoing] = ray.get(call)
        except (RayActorError, OutOfMemoryError) as error:
            return [_agent_trouble(host, f"died: {_first_line(error)}")]
        self._listen(host, self._specs[host].patience.agent_s)
        return list(self._arrivals.received(sent))

    def _unheard(self) -> list[Event]:
        """Agents that are late by more than their patience; each is told once. One that has answered while others were
        heard is not."""
        now = self._clock.now()
        late = [call for call, one in self._calls.items() if now - one.since > one.patience_s]
        if late:
            _, late = ray.wait(late, num_returns=len(late), timeout=0)
        silent = [self._calls.pop(call) for call in late]
        return [_agent_trouble(one.host, f"has not answered for {now - one.since:.0f} s") for one in silent]


def _by_way_of_here(folder: Folder, hosts: Sequence[str]) -> str:
    return (
        f"{', '.join(hosts)} do not reach {folder.path}: checkpoints go by way of the driver, from its disk and to it"
    )


def _agent_trouble(host: str, cause: str) -> Trouble:
    return Trouble(host, "agent", Severity.DIED, cause)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
