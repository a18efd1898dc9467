"""A loop in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from bridge.system.loop import Loop
from tests.patience import WAIT_S


class LoopThread:
    def __init__(self) -> None:
        self.loop = Loop()
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def ask(self, question: Callable[[], Any]) -> Any:
        """In the loop's thread."""
        answers: list[Any] = []
        done = threading.Event()
        self.loop.call_soon(lambda: (answers.append(question()), done.set()))
        assert done.wait(WAIT_S)
        return answers[0]

    def close(self) -> None:
        self.loop.stop()
        self._thread.join(WAIT_S)
        self.loop.close()
