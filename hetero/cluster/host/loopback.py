"""Whether this host can be listened on."""

from __future__ import annotations

import socket

from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import LOOPBACK


def listen_fault(address: str, port: int = 0) -> str:
    """Why nobody can listen there and be reached from this host; port 0 is any free one."""
    try:
        with socket.create_server((address, port)) as listener:
            socket.create_connection(listener.getsockname()[:2], 2.0).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def check_loopback() -> None:
    """Raises ClusterError at once where Ray, which speaks to itself there, would try for minutes."""
    if fault := listen_fault(LOOPBACK):
        rule = f"the processes of a run reach each other there ({fault})"
        raise ClusterError("network", LOOPBACK, rule, "bring the interface lo up: ip link set lo up")
