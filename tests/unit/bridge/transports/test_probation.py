"""What a TCP connection may take before its peer has proved itself."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from bridge.transports import probation
from bridge.transports.probation import Probation
from tests.contract.bridge_hosts import until
from tests.patience import WAIT_S
from tests.unit.bridge.looping import LoopThread


class Library(LoopThread):
    """Accepts connections, and has a loop whose thread keeps them on probation."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts = list[str]()
        self.probation: Probation = self.ask(
            lambda: Probation(self.loop, lambda fd, address, cause: self.cuts.append(cause))
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []

    def connect(self) -> tuple[socket.socket, int]:
        """A stranger's end, and the descriptor of the library's."""
        stranger = socket.create_connection(self._listener.getsockname())
        stranger.settimeout(WAIT_S)
        accepted, _ = self._listener.accept()
        self._ends += [stranger, accepted]
        return stranger, accepted.fileno()

    def begin(self, fd: int) -> None:
        self.ask(lambda: self.probation.begin(fd))

    def close(self) -> None:
        self.ask(self.probation.close)
        super().close()
        for end in [*self._ends, self._listener]:
            end.close()


@pytest.fixture
def library() -> Iterator[Library]:
    one = Library()
    yield one
    one.close()


def is_hung_up_on(stranger: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        return stranger.recv(1) == b""
    return True


def test_whoever_sends_much_is_hung_up_on(library: Library) -> None:
    stranger, fd = library.connect()
    library.begin(fd)
    with contextlib.suppress(ConnectionError):
        stranger.sendall(bytes(1 << 20))
    assert is_hung_up_on(stranger)
    until(lambda: library.cuts)
    assert library.cuts == ["more than 16384 bytes before it proved itself"]


def test_whoever_is_silent_is_hung_up_on(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probation, "LIMIT_S", 0.05)
    stranger, fd = library.connect()
    library.begin(fd)
    assert is_hung_up_on(stranger)
    until(lambda: library.cuts)
    assert "no proof" in library.cuts[0]


def test_of_too_many_those_go_that_came_first(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probation, "MOST", 2)
    strangers = [library.connect() for _ in range(3)]
    for _, fd in strangers:
        library.begin(fd)
    assert is_hung_up_on(strangers[0][0])
    until(lambda: len(library.cuts) == 1)


def test_whoever_has_shown_credentials_does_not_have_to_go(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probation, "MOST", 1)
    (peer, fd), (stranger, other), (_, last) = (library.connect() for _ in range(3))
    library.begin(fd)
    library.ask(lambda: library.probation.admit(fd))
    library.begin(other)
    assert library.cuts == []
    library.begin(last)
    assert is_hung_up_on(stranger)
    assert library.ask(lambda: library.probation.end(fd)) == "{}:{}".format(*peer.getsockname())


def test_whoever_has_proved_himself_may_send_as_much_as_he_likes(library: Library) -> None:
    peer, fd = library.connect()
    library.begin(fd)
    address = "{}:{}".format(*peer.getsockname())
    assert library.ask(lambda: library.probation.end(fd)) == address
    assert library.ask(lambda: library.probation.end(fd)) == ""
    peer.sendall(bytes(200_000))
    stranger, other = library.connect()
    library.begin(other)
    with contextlib.suppress(ConnectionError):
        stranger.sendall(bytes(200_000))
    assert is_hung_up_on(stranger)  # so there was a look
    assert os.read(fd, 1) == b"\0"
    until(lambda: len(library.cuts) == 1)


def test_a_descriptor_that_is_no_connection_any_more_is_left_alone(library: Library) -> None:
    pipe = os.pipe()
    held = len(os.listdir("/proc/self/fd"))
    for fd in (*pipe, 1 << 20, library._listener.fileno()):
        library.begin(fd)
        library.ask(lambda fd=fd: probation.hang_up(fd, ""))
    assert len(os.listdir("/proc/self/fd")) == held
    assert library.cuts == []
    for fd in pipe:
        os.close(fd)
