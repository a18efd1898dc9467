"""A small HTTP server inside a run, at which strangers may knock: it costs the run few threads and descriptors."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client.exposition import ThreadingWSGIServer

MOST = 32
"""Connections at a time; when more come, those go that have had the most time."""
SILENT_S = 10.0


class Server(ThreadingWSGIServer):
    """A thread for each of a few connections."""

    request_queue_size = MOST

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._guests: dict[socket.socket, None] = {}  # in the order of arrival
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._guests[request] = None
            if len(self._guests) > MOST:
                self._send_away(next(iter(self._guests)))
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._guests.pop(request, None)
            super().shutdown_request(request)

    def _send_away(self, guest: socket.socket) -> None:
        """Its thread reads to the end, and closes it."""
        del self._guests[guest]
        with contextlib.suppress(OSError):
            guest.shutdown(socket.SHUT_RDWR)


class Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, *_: object) -> None:
        """Who asks is nobody's news."""
