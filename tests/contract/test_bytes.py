"""What crosses between two hosts, counted by their endpoints: each byte once, and no memory taken for it."""

from __future__ import annotations

import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest

from bridge.layout.layout import TensorLayout
from bridge.layout.reshard import Placement, reshard
from bridge.transports.transport import WINDOW_BYTES
from bridge.words.frame import CHUNK_BYTES, HEADER_BYTES
from tests.contract.bridge_hosts import Host, channel, link, until
from tests.patience import WAIT_S

Start = Callable[..., Host]
SHAPE = (2, 96, 64)  # a boundary tensor, which every rank of a tensor-parallel group holds whole


@pytest.fixture
def start() -> Iterator[Start]:
    hosts: list[Host] = []

    def begin(name: str, scheme: str, *, process: bool = False) -> Host:
        hosts.append(Host(name, [scheme], process=process))
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
@pytest.mark.parametrize(("ours", "theirs"), [(8, 4), (4, 8), (2, 3), (1, 4)])
def test_a_boundary_tensor_crosses_once_in_each_direction(scheme: str, ours: int, theirs: int, start: Start) -> None:
    a, b = start("a@0", scheme), start("b@0", scheme)
    link(a, b, scheme, ranks=8)
    ports = {port.rank: port for host, count in ((a, ours), (b, theirs)) for port in map(host.port, range(count))}
    ends = [tuple(rank for rank in ports if rank.pool == pool) for pool in ("a", "b")]
    whole = np.random.default_rng(0).random(SHAPE, np.float32)
    for source, target, host in ((ends[0], ends[1], a), (ends[1], ends[0], b)):
        plan = reshard(*(Placement(TensorLayout.replicated(SHAPE, len(ranks)), ranks) for ranks in (source, target)))
        peer = "b@0" if host is a else "a@0"
        before = host.stats(peer)["bytes_sent"]
        frames = arrived = 0
        for number, piece in enumerate(plan.pieces):
            data = whole[tuple(slice(*edge) for edge in piece.source_slices)].tobytes()
            name = f"{source[0].pool} {number}"
            sender, receiver = channel(ports[piece.source], ports[piece.target], name, slot_bytes=len(data))
            arrival = receiver.post_recv(0)
            sender.slots.view(0)[:] = data
            sender.send_message(0, len(data)).wait(WAIT_S)
            arrival.wait(WAIT_S)
            assert bytes(receiver.slots.view(0)) == data
            frames += -(-len(data) // CHUNK_BYTES)
            arrived += len(data)
        assert arrived == whole.nbytes
        assert host.stats(peer)["bytes_sent"] - before == whole.nbytes + frames * HEADER_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "messages"),
    [
        *((scheme, 1_000) for scheme in ("zmq", "grpc", "shm")),
        pytest.param("zmq", 10_000, marks=pytest.mark.exhaustive),
    ],
)
def test_messages_take_no_memory(scheme: str, messages: int, start: Start) -> None:
    a, b = start("a@0", scheme), start("b@0", scheme)
    link(a, b, scheme)
    sender, receiver = channel(a.port(), b.port(), slot_bytes=100_000)

    def cross(count: int) -> None:
        for _ in range(count):
            arrival = receiver.post_recv(0)
            sender.send_message(0, 100_000)
            arrival.wait(WAIT_S)
            while not sender_is_free():
                pass

    def sender_is_free() -> bool:
        sender.port.poll()
        return not sender._busy

    cross(messages // 10)
    tracemalloc.start()
    cross(100)
    before, rss = tracemalloc.get_traced_memory()[0], psutil.Process().memory_info().rss
    cross(messages // 10)
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now - before < 300_000
    cross(messages * 8 // 10)
    assert psutil.Process().memory_info().rss - rss < 30_000_000


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
def test_a_receiver_that_stands_still_bounds_what_its_sender_holds(scheme: str, start: Start) -> None:
    a, b = (start(name, scheme, process=True) for name in ("a@0", "b@0"))
    link(a, b, scheme)
    sender, receiver = channel(a.port(), b.port(), slot_bytes=4 * WINDOW_BYTES, slots=1)
    arrival = receiver.post_recv(0)
    sender.slots.view(0)[:] = bytes(4 * WINDOW_BYTES)
    assert a.process
    process = psutil.Process(a.process.pid)
    until(lambda: a.stats("b@0")["bytes_received"] > 0)
    before = process.memory_info()
    b.kill(signal.SIGSTOP)
    sender.send_message(0, 4 * WINDOW_BYTES)
    time.sleep(1.0)
    after = process.memory_info()
    assert a.stats("b@0")["bytes_sent"] < WINDOW_BYTES + 2 * CHUNK_BYTES
    assert (after.rss - after.shared) - (before.rss - before.shared) < 2 * WINDOW_BYTES
    b.kill(signal.SIGCONT)
    arrival.wait(WAIT_S)
    assert arrival.nbytes == 4 * WINDOW_BYTES
