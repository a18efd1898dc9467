"""Whatever happens between two endpoints, every message arrives once, in order, as it was sent."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from bridge.endpoint.endpoint import PATIENCE_S
from bridge.port.port import Channel, Ticket
from bridge.transports.grpc import GrpcConnection
from bridge.transports.shm import ShmConnection
from bridge.transports.transport import Connection
from bridge.transports.zmq import ZmqConnection
from tests.contract.bridge_hosts import Host, channel, introduce, until
from tests.contract.faults import KINDS, FrameFaults, Relay
from tests.patience import RUN_S

CONNECTIONS: dict[str, type[Connection]] = {"zmq": ZmqConnection, "grpc": GrpcConnection, "shm": ShmConnection}
SLOT_BYTES, SLOTS = 3_000_000, 3
FAULTS = int(os.environ.get("HETERO_TEST_FAULTS", "60"))
Linked = Callable[..., tuple[Host, Host]]


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Linked]:
    """Two hosts, linked over a transport; with `relay`, everything between them goes through it. They are closed before
    what a test has patched is put back: threads may not run through a class whose methods change."""
    hosts: list[Host] = []

    def begin(
        scheme: str,
        *,
        sealed: bool = False,
        streams: int = 1,
        relays: list[Relay] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> tuple[Host, Host]:
        a, b = (Host(name, [scheme], patience_s=patience_s) for name in ("a@0", "b@0"))
        hosts.extend((a, b))
        if relays is not None:
            relays.append(Relay(b.uris[scheme]))
            b.uris[scheme] = relays[0].uri
        for host, peer in ((a, b), (b, a)):
            introduce(host, peer, scheme, sealed=sealed, streams=streams)
        return a, b

    yield begin
    for host in hosts:
        host.close()


class Flow:
    """Messages from one end of a channel to the other, numbered, of random sizes and content. Some are announced first
    and filled in at the next turn."""

    def __init__(self, ends: tuple[Channel, Channel], seed: int) -> None:
        self.sender, self.receiver = ends
        self._sizes, self._contents = random.Random(seed), {}
        self._sent: deque[Ticket] = deque()
        self._unfilled: list[tuple[Ticket, bytes]] = []
        self._posted: deque[Ticket] = deque(self.receiver.post_recv(slot) for slot in range(SLOTS))
        self.begun = self.arrived = 0

    def turn(self) -> None:
        """Sends what there is a slot for, and examines what has come."""
        self.fill()
        while self._sent and self._sent[0].done():
            self._sent.popleft().wait(0)
        if len(self._sent) < SLOTS:
            self._send()
        while self._posted[0].done():
            self._examine(self._posted.popleft())

    def _send(self) -> None:
        slot, size = self.begun % SLOTS, self._sizes.choice([0, 1, 100, 70_000, SLOT_BYTES])
        content = random.Random(self.begun).randbytes(size)
        filled = self._sizes.choice([0, size // 2, size])
        self.sender.slots.view(slot)[:size] = content[:filled] + bytes(size - filled)
        self._contents[self.begun] = content
        self._sent.append(self.sender.send_message(slot, size, filled))
        self._unfilled.append((self._sent[-1], content))
        self.begun += 1

    def fill(self) -> None:
        """Completes what was announced."""
        for ticket, content in self._unfilled:
            self.sender.slots.view(ticket.slot)[: len(content)] = content
            ticket.fill(len(content))
        self._unfilled.clear()

    def _examine(self, ticket: Ticket) -> None:
        ticket.wait(0)
        slot = self.arrived % SLOTS
        assert bytes(self.receiver.slots.view(slot)[: ticket.nbytes]) == self._contents.pop(self.arrived)
        self.arrived += 1
        self._posted.append(self.receiver.post_recv(slot))


def flows_of(a: Host, b: Host) -> list[Flow]:
    ports = a.port(), b.port()
    ends = [
        channel(*way, name=str(n), slot_bytes=SLOT_BYTES, slots=SLOTS) for n, way in enumerate((ports, ports[::-1]))
    ]
    return [Flow(end, seed) for seed, end in enumerate(ends)]


def run(flows: list[Flow], until: Callable[[], bool], seconds: float = RUN_S) -> None:
    """Keeps all flows going until `until()`, and then until all that was sent has come."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, [(flow.begun, flow.arrived) for flow in flows]
        for flow in flows:
            flow.turn()
        time.sleep(0.0005)
    for flow in flows:
        flow.fill()
        while flow.arrived < flow.begun:
            assert time.monotonic() < end
            flow._examine(flow._posted.popleft()) if flow._posted[0].done() else time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "sealed"),
    [
        ("zmq", True),
        ("grpc", False),
        ("shm", False),
        *(pytest.param(*other, marks=pytest.mark.exhaustive) for other in (("zmq", False), ("grpc", True))),
    ],
)
def test_frames_that_suffer(scheme: str, sealed: bool, linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = KINDS if scheme != "shm" else [kind for kind in KINDS if kind not in ("truncate", "flip_body")]  # no bodies
    a, b = linked(scheme, sealed=sealed)
    flows = flows_of(a, b)
    faults = FrameFaults(CONNECTIONS[scheme], monkeypatch, seed=7, rate=0.05, most=FAULTS, kinds=kinds)
    run(flows, lambda: faults.done.total() >= FAULTS, seconds=RUN_S + FAULTS)
    assert set(faults.done) == set(kinds)
    assert min(flow.arrived for flow in flows) > FAULTS // 10
    stats = a.stats("b@0")
    assert stats["reconnects"] > FAULTS // 4
    assert stats["frames_repeated"] > FAULTS // 4


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
@pytest.mark.parametrize("streams", [pytest.param(1, marks=pytest.mark.exhaustive), 3])
def test_streams_that_are_cut_in_the_middle(scheme: str, streams: int, linked: Linked) -> None:
    relays: list[Relay] = []
    flows = flows_of(*linked(scheme, streams=streams, relays=relays))
    [relay] = relays
    for cut in range(10):
        target = relay.bytes_moved + 2_000_000 + 137 * cut
        run(flows, lambda target=target: relay.bytes_moved > target)
        relay.cut()
    before = [flow.arrived for flow in flows]
    run(flows, lambda: all(flow.arrived > was for flow, was in zip(flows, before, strict=True)))
    relay.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
def test_a_stream_that_stands_still_is_replaced(scheme: str, linked: Linked) -> None:
    relays: list[Relay] = []
    a, b = linked(scheme, relays=relays, patience_s=6.0)
    flows = flows_of(a, b)
    [relay] = relays
    run(flows, lambda: flows[0].arrived > 3)
    relay.stopped = True
    for flow in flows:
        flow.turn()
    until(relay.is_dialled)
    relay.stopped = False
    before = [flow.arrived for flow in flows]
    run(flows, lambda: all(flow.arrived > was + 2 for flow, was in zip(flows, before, strict=True)))
    assert a.stats("b@0")["reconnects"] >= 1
    relay.close()
