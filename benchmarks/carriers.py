"""Ways to bring a buffer from one process to another, all alike from outside: the bridge's, its ceilings, its peers.

Each has a sending and a receiving process of its own, which have the memory of a message ready before the clock runs.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil

from bridge.port.pipe import Pipe
from bridge.port.port import Channel, Port, Ticket
from bridge.rank import RankId
from bridge.system.linux import past_caches
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import (
    Attach,
    EndpointOrder,
    Introduce,
    LinkProbed,
    Listen,
    PeerSpec,
    ProbeLink,
)

DEADLINE_S = 120.0
A, B = RankId("a", 0), RankId("b", 0)
SLOTS = 4
_HOST = "127.0.0.1"
_SPAWN = multiprocessing.get_context("spawn")
Place = tuple[str, str | None]
"""Of an endpoint: its address, and the network namespace that has it, if not this one."""
Work = Callable[[int, int, int], None]
"""Brings `count` messages of `nbytes` across, `window` at a time; the sender's returns when they are all there."""


class Carrier:
    """Two processes, told over pipes what to do. `open_end` runs in each of them and gives its work."""

    name = ""

    def __init__(self, nbytes: int) -> None:
        self._others: list[int] = []  # processes that carry, beside the two ends
        self._told: list[multiprocessing.connection.Connection] = []
        self._processes: list[multiprocessing.context.SpawnProcess] = []
        parts = self.prepare(nbytes)
        for role, part in zip(("send", "receive"), parts, strict=True):
            ours, theirs = _SPAWN.Pipe()
            process = _SPAWN.Process(target=_serve, args=(theirs, self.open_end, role, nbytes, part), daemon=True)
            process.start()
            self._told.append(ours)
            self._processes.append(process)
        for told in self._told:
            _answer(told)

    def prepare(self, nbytes: int) -> tuple[Any, Any]:
        """What the two ends need to find each other."""
        return None, None

    @staticmethod
    def open_end(role: str, nbytes: int, part: Any) -> Work:
        """In the end's own process."""
        raise NotImplementedError

    def cross(self, nbytes: int, count: int, *, busy: bool = False, window: int = SLOTS) -> float:
        """Seconds for `count` messages, one way. `busy`: both processes compute in pure Python meanwhile; `window`: how
        many messages of the bridge are under way at once."""
        for told in self._told:
            told.send((nbytes, count, window, busy))
        seconds = [_answer(told) for told in self._told]
        return seconds[0]

    def cpu_s(self) -> float:
        """Processor time of all processes that take part, so far."""
        pids = [process.pid for process in self._processes] + self._others
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return sum(t.user + t.system for t in times)

    def close(self) -> None:
        """Ends the processes."""
        for told, process in zip(self._told, self._processes, strict=True):
            told.close()
            process.join(10)
            process.kill()


def _answer(told: multiprocessing.connection.Connection) -> Any:
    if not told.poll(DEADLINE_S):
        raise TimeoutError(f"no answer within {DEADLINE_S:g} s")
    answer = told.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(
    orders: multiprocessing.connection.Connection, open_end: Callable[..., Work], role: str, nbytes: int, part: Any
) -> None:
    with contextlib.suppress(EOFError):
        try:
            work = open_end(role, nbytes, part)
            orders.send(0.0)
            while True:
                size, count, window, busy = orders.recv()
                with _spinning(busy):
                    start = time.perf_counter()
                    work(size, count, window)
                    orders.send(time.perf_counter() - start)
        except EOFError:
            raise
        except Exception as error:
            orders.send(error)


@contextlib.contextmanager
def _spinning(busy: bool) -> Any:
    """What a training loop in Python does to the other threads of its process."""
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            sum(range(100))

    thread = threading.Thread(target=spin)
    if busy:
        thread.start()
    yield
    done.set()
    if busy:
        thread.join()


class Memcpy(Carrier):
    """One copy within one process: what no way across can beat, unless it does not copy."""

    name = "memcpy"

    @staticmethod
    def open_end(role: str, nbytes: int, part: Any) -> Work:
        pairs = [(np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)) for _ in range(SLOTS)]

        def copy(size: int, count: int, _: int) -> None:
            for n in range(count if role == "send" else 0):
                source, target = pairs[n % SLOTS]
                np.copyto(target[:size], source[:size])

        return copy


class Tcp(Carrier):
    """One plain socket over loopback, received in place: the wire's own speed."""

    name = "tcp"

    def prepare(self, nbytes: int) -> tuple[Any, Any]:
        with socket.create_server((_HOST, 0)) as listener:
            there = socket.create_connection(listener.getsockname())
            here, _ = listener.accept()
        for end in (there, here):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return there, here

    @staticmethod
    def open_end(role: str, nbytes: int, part: Any) -> Work:
        end, buffer = part, memoryview(bytearray(nbytes))

        def send(size: int, count: int, _: int) -> None:
            for _ in range(count):
                end.sendall(buffer[:size])
            end.recv(1)

        def receive(size: int, count: int, _: int) -> None:
            for _ in range(count):
                end.recv_into(buffer[:size], size, socket.MSG_WAITALL)
            end.send(b"!")

        return send if role == "send" else receive


class Gloo(Carrier):
    """torch.distributed's send and recv over its CPU backend."""

    name = "gloo"

    def prepare(self, nbytes: int) -> tuple[Any, Any]:
        with socket.create_server((_HOST, 0)) as free:
            address = f"tcp://{_HOST}:{free.getsockname()[1]}"
        return address, address

    @staticmethod
    def open_end(role: str, nbytes: int, part: Any) -> Work:
        import torch
        from torch import distributed

        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=part, world_size=2, rank=int(role == "receive"))
        tensor, token = torch.ones(nbytes, dtype=torch.uint8), torch.ones(1)

        def send(size: int, count: int, _: int) -> None:
            for _ in range(count):
                distributed.send(tensor[:size], 1)
            distributed.recv(token, 1)

        def receive(size: int, count: int, _: int) -> None:
            for _ in range(count):
                distributed.recv(tensor[:size], 0)
            distributed.send(token, 0)

        return send if role == "send" else receive


class Bridge(Carrier):
    """Two endpoints in processes of their own, over one transport; the message lies in slots, as a rank's does."""

    scheme, sealed, streams = "zmq", False, 1
    places: tuple[Place, Place] = ((_HOST, None), (_HOST, None))
    probe_bytes = 256 << 20

    def prepare(self, nbytes: int) -> tuple[Any, Any]:
        self._controls = [self._endpoint(namespace) for _, namespace in self.places]
        self._uris = [
            self._ask(control, Listen(_name(rank), host, (self.scheme,)))
            for control, rank, (host, _) in zip(self._controls, (A, B), self.places, strict=True)
        ]
        ports = [self._attach(control, rank) for control, rank in zip(self._controls, (A, B), strict=True)]
        self._join(self.streams)
        return ports[0], ports[1]

    def probe(self, streams: int) -> list[LinkProbed]:
        """What each end finds of the way to the other, joined by so many streams from now on."""
        self._join(streams)
        return [self._look(*way) for way in zip(self._controls, (B, A), strict=True)]

    def _look(self, control: Pipe, other: RankId) -> LinkProbed:
        """The second of two looks: during the first, new connections become fast."""
        looks = [self._ask(control, ProbeLink(_name(other), self.probe_bytes)) for _ in range(2)]
        return looks[-1]

    def _join(self, streams: int) -> None:
        for control, other, listening in zip(self._controls, (B, A), self._uris[::-1], strict=True):
            peer = PeerSpec(listening.uris[self.scheme], listening.key, streams, self.sealed)
            self._ask(control, Introduce({_name(other): peer}, {str(other): _name(other)}))

    @staticmethod
    def open_end(role: str, nbytes: int, part: Any) -> Work:
        port = Port(part, A if role == "send" else B)
        channel = port.open(ChannelSpec(0, "activation", "benchmark", A, B, nbytes, SLOTS))
        for slot in range(SLOTS):
            channel.slots.view(slot)[:] = bytes(nbytes)  # the pages are there, as in a channel that has been used
        return functools.partial(_send if role == "send" else _receive, channel)

    def close(self) -> None:
        super().close()
        for control in self._controls:
            control.close()
        for endpoint in self._endpoints:
            endpoint.wait(10)

    _endpoints: list[subprocess.Popen[bytes]]

    def _endpoint(self, namespace: str | None) -> Pipe:
        control, theirs = Pipe.pair()
        fd = theirs.detach()
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        command = [*inside, sys.executable, "-m", "bridge.endpoint", "--fd", str(fd)]
        process = subprocess.Popen(command, pass_fds=[fd], env=past_caches(os.environ))
        os.close(fd)
        self._endpoints = [*getattr(self, "_endpoints", []), process]
        self._others.append(process.pid)
        return control

    @staticmethod
    def _ask(control: Pipe, order: EndpointOrder[Any], fds: Sequence[int] = ()) -> Any:
        control.send_word(order, fds)
        answer, _ = control.recv_word(20)
        assert isinstance(answer, order.answer), answer
        return answer

    @staticmethod
    def _attach(control: Pipe, rank: RankId) -> socket.socket:
        ours, theirs = socket.socketpair()
        Bridge._ask(control, Attach(rank), [theirs.fileno()])
        theirs.close()
        return ours


def _name(rank: RankId) -> str:
    """Of its endpoint."""
    return f"{rank.pool}@0"


def _send(channel: Channel, size: int, count: int, window: int) -> None:
    tickets: deque[Ticket] = deque()
    for n in range(count):
        if len(tickets) == window:
            tickets.popleft().wait(DEADLINE_S)
        tickets.append(channel.send_message(n % window, size))
    for ticket in tickets:
        ticket.wait(DEADLINE_S)


def _receive(channel: Channel, size: int, count: int, window: int) -> None:
    tickets = deque(channel.post_recv(slot) for slot in range(min(window, count)))
    for n in range(count):
        tickets.popleft().wait(DEADLINE_S)
        if n + window < count:
            tickets.append(channel.post_recv(n % window))


class Zmq(Bridge):
    name = "zmq"


class ZmqEncrypted(Bridge):
    name, sealed = "zmq_encrypted", True


class Grpc(Bridge):
    name, scheme = "grpc", "grpc"


class Shm(Bridge):
    name, scheme = "shm", "shm"


class RayStore(Carrier):
    """Ray's object store: one actor puts, another gets and copies to where it wants it."""

    name = "ray"

    def __init__(self, nbytes: int) -> None:
        import ray

        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._ray = ray
        ends: list[Any] = [ray.remote(_RayEnd).remote(nbytes) for _ in range(2)]
        self._source, self._target = ends

    def cross(self, nbytes: int, count: int, *, busy: bool = False, window: int = SLOTS) -> float:
        start = time.perf_counter()
        under_way: deque[Any] = deque()
        for _ in range(count):
            if len(under_way) == window:
                self._ray.get(under_way.popleft())
            under_way.append(self._target.take.remote(self._source.give.remote(nbytes)))
        self._ray.get(list(under_way))
        return time.perf_counter() - start

    def cpu_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self._ray.shutdown()


class _RayEnd:
    def __init__(self, nbytes: int) -> None:
        self._data = np.ones(nbytes, np.uint8)

    def give(self, size: int) -> Any:
        return self._data[:size]

    def take(self, data: Any) -> None:
        np.copyto(self._data[: len(data)], data)
