"""Where a dashboard listens, and by which names it may be called."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from urllib.parse import urlsplit

from hetero.monitoring.errors import MonitorError

_REMEDIES = {
    errno.EADDRINUSE: "end what listens there, or choose another port; `auto` takes a free one",
    errno.EACCES: "choose a port from 1024 up; `auto` takes a free one",
    errno.EADDRNOTAVAIL: "give an address of this host",
}


def listen(host: str, port: int | str, key: str) -> socket.socket:
    """A listening socket, which the caller closes; port `auto` is any free one. MonitorError, at `key`, if there is
    none to be had."""
    number = 0 if port == "auto" else int(port)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise MonitorError("--host", host, f"must name this host ({error.strerror})", "leave it out") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _explained(error, host, number, key) from None
    return listener


def url(listener: socket.socket) -> str:
    """What to open in a browser."""
    host, port = listener.getsockname()[:2]
    with contextlib.suppress(KeyError):
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}[host]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this host's own, by its spelling."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def calls_loopback(header: str) -> bool:
    """The same of a request's `Host`, which may have a port."""
    try:
        return is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False


def _explained(error: OSError, host: str, port: int, key: str) -> MonitorError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    remedy = _REMEDIES.get(error.errno or 0, "choose another port; `auto` takes a free one")
    return MonitorError(key, f"{host}:{port}", f"must be free to listen on ({reason})", remedy)
