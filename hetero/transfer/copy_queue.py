"""A chip's copies in their order, and who waits for them, so that the rank's own thread need not."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from backends.backend import Backend, Copy
from bridge.errors import BridgeError
from bridge.port.port import Port

Then = Callable[[], None]


class CopyQueue:
    """Says of copies, one after the other, that they are over. Has a thread only once there is something to wait for.

    One for each direction: what goes in must not wait for what comes out.
    """

    def __init__(self, backend: Backend, name: str, on_failure: Callable[[Exception], None]) -> None:
        self._backend, self._name, self._on_failure = backend, name, on_failure
        self._copies: SimpleQueue[tuple[Copy, Then] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._given = self._over = 0

    def follow(self, copy: Copy, then: Then) -> None:
        """Calls `then` when the copy is over and those before it are: now, if they are, else from a thread."""
        if self._given == self._over and copy.done():
            then()
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"copies-{self._name}", daemon=True)
            self._thread.start()
        self._given += 1
        self._copies.put((copy, then))

    def close(self) -> None:
        """Returns when all that was to be followed is over."""
        if self._thread is not None:
            self._copies.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        try:
            self._backend.attend()
            while (found := self._copies.get()) is not None:
                copy, then = found
                copy.wait()
                then()
                self._over += 1
        except Exception as failure:  # the chip's own, of whatever kind; nothing more will be over
            self._on_failure(failure)


def fail_port(port: Port, backend: Backend, failure: Exception) -> None:
    """Ends every wait of this rank and tells its peers: its chip has failed in a copy that nobody stands by."""
    rule = f"its copy between chip and slot failed: {failure}"
    port.fail(BridgeError("chip", str(backend.device), rule, "look at the chip and its driver's log"))
