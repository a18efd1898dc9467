"""The agent: a thread that owns one Host. Local agents run it in the driver, Ray agents in an actor."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from bridge.words.error import ErrorReport
from hetero.cluster.control.events import Event, Severity, Trouble
from hetero.cluster.control.instructions import HostOrder
from hetero.cluster.fleet import HostSpec
from hetero.cluster.host.host import Host

POLL_S = 0.5
CLOSING_S = 15.0


class Agents(Protocol):
    """Carry orders to all hosts and events back, each way in order. `receive` gathers what arrives within `timeout`
    seconds; the death of an agent is an event too. `close` ends agents and all that they started."""

    def start(self, hosts: tuple[HostSpec, ...]) -> None: ...

    def send(self, host: str, order: HostOrder) -> None: ...

    def receive(self, timeout: float) -> list[Event]: ...

    def close(self) -> None: ...


class Agent:
    """Runs a Host in a thread of its own, which lives as long as the host's processes do."""

    def __init__(self, spec: HostSpec, deliver: Callable[[list[Event]], None]) -> None:
        self._deliver = deliver
        self._orders: queue.SimpleQueue[HostOrder] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._host = Host(spec)
        self._thread = threading.Thread(target=self._run, name=f"agent {spec.id}", daemon=True)
        self._thread.start()

    def send(self, order: HostOrder) -> None:
        """Hands an order over; does not wait for it."""
        if self._thread.is_alive():
            self._orders.put(order)
            self._host.wake()

    def close(self) -> None:
        """Ends the host's processes and the thread; all are gone when this returns."""
        self.ask_to_close()
        self._thread.join(CLOSING_S)

    def ask_to_close(self) -> None:
        """The first half of `close`, so that many agents can end at the same time."""
        if not self._closing.is_set():
            self._closing.set()
            self._host.wake()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._work()
        except Exception as error:
            cause = f"failed: {type(error).__name__}: {error}"
            told = ErrorReport.of(error).plain()
            self._deliver([Trouble(self._host.spec.id, "agent", Severity.DIED, cause, error=told)])
            self._closing.wait()
        finally:
            self._host.close()

    def _work(self) -> None:
        while not self._orders.empty():
            self._host.handle(self._orders.get())
        if events := self._host.poll(POLL_S):
            self._deliver(events)


T = TypeVar("T")


def drained(queued: queue.SimpleQueue[list[T]], timeout: float) -> list[T]:
    """Everything that has been queued, after at most `timeout` seconds of waiting for the first of it."""
    try:
        events = list(queued.get(timeout=timeout))
    except queue.Empty:
        return []
    while not queued.empty():
        events += queued.get()
    return events


class LocalAgents:
    """All agents in this process: for tests, and for ranks that stand ready for one plan after another. They share its
    disk, so there is nothing to note of what hosts reach, and nothing to carry."""

    notes: tuple[str, ...] = ()
    carries_checkpoints = False

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._events: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()

    def start(self, hosts: tuple[HostSpec, ...]) -> None:
        for spec in hosts:
            self._agents[spec.id] = Agent(spec, self._events.put)

    def send(self, host: str, order: HostOrder) -> None:
        self._agents[host].send(order)

    def receive(self, timeout: float) -> list[Event]:
        return drained(self._events, timeout)

    def close(self) -> None:
        for agent in self._agents.values():
            agent.ask_to_close()
        for agent in self._agents.values():
            agent.close()
        self._agents.clear()
