"""Who is connected to a rank, and that nobody joins later."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from hetero.engine.mesh import Mesh, RankConnections, strangers

PATIENCE_S = 0.2


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """A socket that is there already, as if it were another process's."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one


def test_a_connection_that_no_rank_has_called_is_a_stranger_s(elsewhere: socket.socket) -> None:
    mesh = Mesh()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        elsewhere.connect(address)
        with closing(listener.accept()[0]), socket.create_connection(address) as fellow, closing(listener.accept()[0]):
            ends = RankConnections.told(json.loads(json.dumps(mesh.close())))
            assert ends.called == [(fellow.getsockname(), address)]
            assert strangers([ends]) == {(elsewhere.getsockname(), address)}
            assert not strangers([ends, RankConnections([(elsewhere.getsockname(), address)], [])]), (
                "a fellow has called"
            )


def test_whoever_is_connected_goes_on_and_nobody_joins(elsewhere: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        mesh = Mesh()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            there = listener.getsockname()
            fellow = socket.create_connection(there)
            mesh.close()
            with pytest.raises(TimeoutError):
                socket.create_connection(there, PATIENCE_S)
            with fellow, closing(listener.accept()[0]) as end:
                fellow.sendall(b"still here")
                assert end.recv(10) == b"still here"
        elsewhere.connect(before.getsockname())  # it was there already, and takes whom it likes
