from __future__ import annotations

import socket

import pytest

from bridge.system.linux import past_caches, take_all_segments, take_small_segments
from tests.patience import WAIT_S

THRESHOLD = "glibc.cpu.x86_non_temporal_threshold"


@pytest.mark.parametrize(
    ("said", "tunables"),
    [
        ({}, f"{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": ""}, f"{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, f"glibc.malloc.check=1:{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": f"{THRESHOLD}=0x4040"}, f"{THRESHOLD}=0x4040"),
    ],
)
def test_copies_go_past_the_caches_unless_somebody_has_said_otherwise(said: dict[str, str], tunables: str) -> None:
    variables = {"PATH": "/bin"} | said
    assert past_caches(variables) == {"PATH": "/bin", "GLIBC_TUNABLES": tunables}
    assert variables == {"PATH": "/bin"} | said


def test_of_large_segments_nothing_comes_until_all_are_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        take_small_segments(listener, 2048)
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with peer, ours:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(b"small")
            ours.settimeout(WAIT_S)
            assert ours.recv(100) == b"small"
            peer.sendall(bytes(100_000))
            ours.settimeout(0.1)
            with pytest.raises(TimeoutError):
                ours.recv(100)
            take_all_segments(ours)
            ours.settimeout(WAIT_S)
            assert len(ours.recv(100_000, socket.MSG_WAITALL)) == 100_000


def test_connections_without_a_filter_take_all_as_before() -> None:
    one, other = socket.socketpair()
    with one, other:
        take_all_segments(one)
        other.sendall(b"x")
        assert one.recv(1) == b"x"
