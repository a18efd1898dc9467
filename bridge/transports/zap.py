"""Who may come in, as libzmq asks before it identifies a dialler or keeps anything of it (ZeroMQ RFC 27)."""

from __future__ import annotations

import zmq

from bridge.system.loop import Loop
from bridge.transports.transport import Admits

DOMAIN = b"hetero"
_ADDRESS = "inproc://zeromq.zap.01"
_REQUESTS_PER_TURN = 32
_COME_IN, _GO_AWAY = b"200", b"403"  # ZAP knows no 403: libzmq hangs up, while after its 400 the other side may stay
_POLLIN = int(zmq.POLLIN)  # its enumeration costs more than the question
REFUSED = int(zmq.PROTOCOL_ERROR_ZAP_INVALID_STATUS_CODE)
"""What a socket's monitor tells of whoever was not let in."""


class ZapHandler:
    """Answers for all listeners of a context. `admits` is shown the PLAIN username and password."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], loop: Loop, admits: Admits) -> None:
        self._loop, self._admits = loop, admits
        self._socket = context.socket(zmq.REP)
        self._socket.bind(_ADDRESS)
        loop.watch(self._socket.fileno(), self._turn)

    def close(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._socket.close(0)

    def _turn(self) -> None:
        for _ in range(_REQUESTS_PER_TURN):
            if self._socket.closed or not readable(self._socket):
                return
            version, request, _, _, _, mechanism, *shown = self._socket.recv_multipart()
            good = mechanism == b"PLAIN" and self._admits(*(part.decode("latin-1") for part in shown))
            self._socket.send_multipart([version, request, _COME_IN if good else _GO_AWAY, b"", b"", b""])
        self._loop.call_soon(self._turn)


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message waits. The descriptor tells only of changes, so this is asked until it is False."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _POLLIN)
