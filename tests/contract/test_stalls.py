"""What a receiver that stands still costs its sender: a bounded amount of memory, for however long it stands.

HETERO_TEST_STALL_S=60 makes the stalls a minute long.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

import psutil
import pytest

from bridge.errors import PeerLost
from bridge.port.pipe import Pipe
from bridge.port.port import Channel, Ticket
from bridge.rank import RankId
from bridge.transports.transport import WINDOW_BYTES
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import Attach, Attached, LostPeer
from bridge.words.frame import CHUNK_BYTES
from tests.contract.bridge_hosts import Host, await_connection, channel, cross, link, until
from tests.patience import WAIT_S

pytestmark = pytest.mark.slow
Start = Callable[..., Host]
STALL_S = float(os.environ.get("HETERO_TEST_STALL_S", "1"))
SLOT_BYTES, SLOTS = WINDOW_BYTES // 2, 4

# a rank that receives from a:0 for ever
RECEIVER = f"""
import socket, sys
from bridge.words.channel import ChannelSpec
from bridge.port.port import Port
from bridge.rank import RankId
rank = RankId("b", 0)
channel = Port(socket.socket(fileno=int(sys.argv[1])), rank).open(
    ChannelSpec(0, "activation", "flow", RankId("a", 0), rank, {SLOT_BYTES}, {SLOTS}))
posted = [channel.post_recv(slot) for slot in range({SLOTS})]
while True:
    ticket = posted.pop(0)
    ticket.wait(1000)
    posted.append(channel.post_recv(ticket.slot))
"""


@pytest.fixture
def start() -> Iterator[Start]:
    hosts: list[Host] = []

    def begin(name: str, scheme: str, **options: object) -> Host:
        hosts.append(Host(name, [scheme], **options))  # type: ignore[arg-type]
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


class Watched:
    """The memory of a process's own, without what it shares."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self.most = self._own()

    def look(self) -> None:
        self.most = max(self.most, self._own())

    @property
    def growth(self) -> int:
        return self.most - self._before

    def _own(self) -> int:
        memory = self._process.memory_info()
        return int(memory.rss - memory.shared)


@pytest.fixture
def receiver(start: Start) -> Iterator[Callable[[Host], subprocess.Popen[bytes]]]:
    """Starts rank b:0 in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(host: Host) -> subprocess.Popen[bytes]:
        ours, theirs = Pipe.pair()
        host.control.send_word(Attach(RankId("b", 0)), [theirs.fileno()])
        host.expect(Attached)
        theirs.close()
        command = [sys.executable, "-c", RECEIVER, str(ours.fileno())]
        started.append(subprocess.Popen(command, pass_fds=[ours.fileno()]))
        ours.close()
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait(WAIT_S)


@pytest.mark.parametrize("scheme", ["zmq", "grpc", "shm"])
def test_a_rank_that_takes_nothing_costs_no_memory_and_holds_nobody_else_up(
    scheme: str, start: Start, receiver: Callable[[Host], subprocess.Popen[bytes]]
) -> None:
    a, b = (start(name, scheme, process=True) for name in ("a@0", "b@0"))
    link(a, b, scheme)
    rank, source = receiver(b), a.port()
    sender = source.open(ChannelSpec(0, "activation", "flow", source.rank, RankId("b", 0), SLOT_BYTES, SLOTS))
    others = channel(a.port(1), b.port(1), "others")
    under_way = deque(sender.send_message(slot, SLOT_BYTES) for slot in range(SLOTS))
    send_on(sender, under_way, seconds=0.5)
    endpoints = [Watched(host.process.pid) for host in (a, b) if host.process]
    rank.send_signal(signal.SIGSTOP)
    arrived, end = 0, time.monotonic() + STALL_S
    while time.monotonic() < end:
        arrived += send_on(sender, under_way, seconds=0.05)
        assert cross(*others, b"not held up") == b"not held up"
        for endpoint in endpoints:
            endpoint.look()
    assert arrived <= 2 * SLOTS  # where the rank had posted, and what it had not heard of yet
    assert [ticket.done() for ticket in under_way] == [False] * SLOTS
    assert max(endpoint.growth for endpoint in endpoints) < WINDOW_BYTES
    rank.send_signal(signal.SIGCONT)
    for ticket in under_way:
        ticket.wait(WAIT_S)


def send_on(sender: Channel, under_way: deque[Ticket], seconds: float) -> int:
    """Sends again from each slot that is free. Gives the number of messages that have arrived."""
    end, arrived = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if under_way[0].done():
            under_way.append(sender.send_message(under_way.popleft().slot, SLOT_BYTES))
            arrived += 1
        else:
            time.sleep(0.001)
    return arrived


@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
def test_an_endpoint_that_stands_still_is_lost_and_costs_its_sender_a_window_at_most(scheme: str, start: Start) -> None:
    a, b = start("a@0", scheme, patience_s=3.0), start("b@0", scheme, process=True)
    link(a, b, scheme)
    sender, receiver = channel(a.port(), b.port(), slot_bytes=4 * WINDOW_BYTES, slots=1)
    sender.slots.view(0)[:] = bytes(4 * WINDOW_BYTES)
    receiver.post_recv(0)
    await_connection(a, b)
    until(lambda: a.stats("b@0")["bytes_received"] > 0)
    here = Watched(os.getpid())
    b.kill(signal.SIGSTOP)
    departure, end = sender.send_message(0, 4 * WINDOW_BYTES), time.monotonic() + STALL_S

    def over() -> bool:
        here.look()
        return departure.done() and time.monotonic() > end

    until(over, STALL_S + WAIT_S)
    with pytest.raises(PeerLost, match="silent"):
        departure.wait(0)
    assert a.expect(LostPeer).peer == "b@0"
    assert a.stats("b@0")["bytes_sent"] < WINDOW_BYTES + 2 * CHUNK_BYTES
    assert here.growth < 2 * WINDOW_BYTES
    b.kill(signal.SIGCONT)
