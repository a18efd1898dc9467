"""What a library behind a front gets of strangers, and of whoever has proved himself."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.transports import front
from bridge.transports.front import Front, HiddenSocket
from bridge.transports.probation import MOST
from tests.contract.bridge_hosts import until
from tests.patience import WAIT_S
from tests.unit.bridge.looping import LoopThread


class Library(LoopThread):
    """Listens behind a front, whose loop has a thread."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.cuts = list[str]()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "inside"))
        self._listener.listen()
        self._listener.settimeout(WAIT_S)
        self.front: Front = self.ask(lambda: Front(self.loop, "127.0.0.1", HiddenSocket(folder / "inside"), self._cut))
        self._ends: list[socket.socket] = []

    def connect(self, says: bytes = b"") -> socket.socket:
        """A stranger's end."""
        stranger = socket.create_connection(("127.0.0.1", self.front.port))
        stranger.settimeout(WAIT_S)
        self._ends.append(stranger)
        stranger.sendall(says)
        return stranger

    def accept(self) -> tuple[socket.socket, str]:
        """The library's end, and the name by which it knows the other."""
        accepted, name = self._listener.accept()
        accepted.settimeout(WAIT_S)
        self._ends.append(accepted)
        return accepted, name[1:].decode()

    def close(self) -> None:
        self.ask(self.front.close)
        super().close()
        for end in [*self._ends, self._listener]:
            end.close()

    def _cut(self, address: str, cause: str) -> None:
        assert address.startswith("127.0.0.1:")
        self.cuts.append(cause)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    one = Library(tmp_path)
    yield one
    one.close()


def all_of(end: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := end.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def trusted(library: Library) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection whose dialler has proved himself."""
    peer = library.connect(b"proof")
    inside, name = library.accept()
    assert inside.recv(5) == b"proof"
    library.ask(lambda: library.front.trust(library.front.address(name)))
    return peer, inside


def test_nobody_else_finds_the_library(library: Library, tmp_path: Path) -> None:
    assert not list(tmp_path.iterdir())


def test_a_handshake_passes_both_ways(library: Library) -> None:
    stranger = library.connect(b"hello")
    inside, _ = library.accept()
    assert inside.recv(5) == b"hello"
    inside.sendall(b"who are you")
    assert stranger.recv(11) == b"who are you"


def test_of_a_flood_the_library_gets_16_kib_at_most(library: Library) -> None:
    stranger = library.connect(b"x")
    with contextlib.suppress(ConnectionError):
        stranger.sendall(bytes(1 << 20))
    assert all_of(stranger) == b""
    inside, _ = library.accept()
    assert len(all_of(inside)) <= 16 << 10
    until(lambda: library.cuts)
    assert library.cuts == ["more than 16384 bytes before it proved itself"]


def test_whoever_is_silent_costs_the_library_nothing_and_is_hung_up_on(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "LIMIT_S", 0.0)
    assert all_of(library.connect()) == b""
    until(lambda: library.cuts)
    assert "no proof" in library.cuts[0]
    library._listener.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        library._listener.accept()


def test_of_many_those_go_that_have_had_the_most_time(library: Library) -> None:
    first, *others = (library.connect() for _ in range(MOST + 1))
    assert all_of(first) == b""
    until(lambda: library.cuts)
    assert len(library.cuts) == 1
    assert others


def test_a_library_that_hangs_up_is_passed_on(library: Library) -> None:
    stranger = library.connect(b"x")
    inside, _ = library.accept()
    assert inside.recv(1) == b"x"
    inside.close()
    assert all_of(stranger) == b""
    assert not library.cuts


@pytest.mark.parametrize("outwards", [False, True])
def test_whoever_is_trusted_sends_and_gets_what_he_likes_for_as_long_as_he_likes(
    library: Library, outwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, inside = trusted(library)
    monkeypatch.setattr(front, "LIMIT_S", 0.0)
    time.sleep(2 * front._LOOK_S)
    source, sink = (inside, peer) if outwards else (peer, inside)
    content = bytes(range(256)) * (1 << 14)
    sender = threading.Thread(target=lambda: (source.sendall(content), source.close()))
    sender.start()
    assert all_of(sink) == content
    sender.join(WAIT_S)
    assert not library.cuts


def test_no_thread_and_no_descriptor_is_left_of_a_peer(library: Library) -> None:
    for _ in range(3):
        peer, inside = trusted(library)
        peer.close()
        assert all_of(inside) == b""
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "bridge-relay"])
