"""Hosts for the bridge's tests: an endpoint in a thread or in a process of its own, and ports of its ranks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from bridge.endpoint.endpoint import PATIENCE_S, Endpoint
from bridge.port.pipe import Pipe
from bridge.port.port import Channel, Port
from bridge.rank import RankId
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import (
    AskStats,
    Attach,
    Attached,
    Introduce,
    Introduced,
    Listen,
    Listening,
    PaceSpec,
    PeerSpec,
    Stats,
)
from bridge.words.word import Word
from tests.patience import WAIT_S

W = TypeVar("W", bound=Word)


class Host:
    """One endpoint. With `process` it is one that can be killed."""

    def __init__(
        self,
        name: str,
        schemes: list[str],
        *,
        process: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = name
        self.ports: list[Port] = []
        self.control, theirs = Pipe.pair()
        self.process: subprocess.Popen[bytes] | None = None
        if process:
            fd = theirs.detach()
            command = [sys.executable, "-m", "bridge.endpoint", "--fd", str(fd)]
            self.process = subprocess.Popen(command, pass_fds=[fd])
            os.close(fd)
        else:
            endpoint = Endpoint(theirs, patience_s=patience_s)
            self.thread = threading.Thread(target=endpoint.run, daemon=True)
            self.thread.start()
        self.control.send_word(Listen(name, "127.0.0.1", tuple(schemes)))
        listening = self.expect(Listening)
        self.uris, self.key = listening.uris, listening.key

    def expect(self, kind: type[W]) -> W:
        """The next word, which must be of that kind."""
        word, _ = self.control.recv_word(WAIT_S)
        assert isinstance(word, kind), word
        return word

    def port(self, index: int = 0) -> Port:
        """Attaches rank `index` of this host's pool."""
        rank = RankId(self.name.partition("@")[0], index)
        ours, theirs = socket.socketpair()
        self.control.send_word(Attach(rank), [theirs.fileno()])
        theirs.close()
        assert self.expect(Attached).rank == rank
        self.ports.append(Port(ours, rank))
        return self.ports[-1]

    def stats(self, peer: str) -> Mapping[str, int]:
        self.control.send_word(AskStats())
        return self.expect(Stats).peers[peer]

    def kill(self, signal_: int = signal.SIGKILL) -> None:
        assert self.process
        self.process.send_signal(signal_)

    def close(self) -> None:
        self.control.close()
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(WAIT_S)
        else:
            self.thread.join(WAIT_S)
            assert not self.thread.is_alive()


def introduce(host: Host, peer: Host, scheme: str, ranks: int = 4, **facts: Any) -> None:
    """Tells a host of another, and of its ranks."""
    routes = {f"{peer.name.partition('@')[0]}:{index}": peer.name for index in range(ranks)}
    host.control.send_word(Introduce({peer.name: PeerSpec(peer.uris[scheme], peer.key, **facts)}, routes))
    host.expect(Introduced)


def link(a: Host, b: Host, scheme: str, pace: PaceSpec | None = None, **facts: Any) -> None:
    """Has two hosts know each other; they are connected by the first channel."""
    for host, peer in ((a, b), (b, a)):
        introduce(host, peer, scheme, pace=pace, **facts)


def await_connection(a: Host, b: Host) -> None:
    """Until both sides have it."""
    for host, peer in ((a, b), (b, a)):
        until(lambda host=host, peer=peer: host.stats(peer.name)["connections"])


def channel(
    source: Port, target: Port, name: str = "x", *, slot_bytes: int = 1024, slots: int = 2, epoch: int = 0
) -> tuple[Channel, Channel]:
    """Both ends of a new channel."""
    spec = ChannelSpec(epoch, "activation", name, source.rank, target.rank, slot_bytes, slots)
    return source.open(spec), target.open(spec)


def cross(sender: Channel, receiver: Channel, data: bytes, slot: int = 0) -> bytes:
    """Sends a message and gives what has arrived."""
    arrival = receiver.post_recv(slot)
    sender.slots.view(slot)[: len(data)] = data
    departure = sender.send_message(slot, len(data))
    arrival.wait(WAIT_S)
    departure.wait(WAIT_S)
    return bytes(receiver.slots.view(slot)[: arrival.nbytes])


def until(condition: Any, seconds: float = WAIT_S) -> None:
    """Waits for something that nobody announces."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
