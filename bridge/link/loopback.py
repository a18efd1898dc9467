"""From an endpoint to itself: two ranks of one host and pool."""

from __future__ import annotations

from bridge.system.loop import Loop
from bridge.transports.transport import Connection, FrameSink


class Loopback(Connection):
    """Gives every frame back to the sink that it came from."""

    chunk_bytes = 4 << 20

    def __init__(self, loop: Loop, sink: FrameSink) -> None:  # of no transport
        self.peer, self._loop, self._sink = "this endpoint", loop, sink

    def send_frame(self, head: bytes, body: memoryview) -> None:
        self._loop.call_soon(lambda: self._sink.on_frame(self, memoryview(head), body))

    def close(self) -> None:
        pass
