"""What asks a command to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that closes. All three raise KeyboardInterrupt.

A handler that raises does so in the middle of anything: of Ray's native code, which then crashes, or of a clean-up,
which then leaves something behind. So a signal that comes while signals are `held` is only noted, and raised where
somebody asks by `check`, or HELD_S later wherever the process then is. One is enough: others disturb no clean-up.

SIGTERM is kept waiting by the system while signals are held, and so for all threads that begin then, those of libraries
too: as Ray starts and ends it has SIGTERM end the process for a while, whichever thread hears it. So a SIGTERM alone is
raised by a `check` or at the end of the stretch, not after HELD_S.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HELD_S = 30.0


class _Listener:
    """What this process has heard. Belongs to the main thread, in which its handler runs."""

    def __init__(self) -> None:
        self.held = 0
        self.answer: Callable[[], object] | None = None
        self._noted = self._raised = False
        self._due: float | None = None

    def hear(self, number: int, _: object) -> None:
        if self.answer is not None:
            self.answer()
            return
        self._noted = True
        is_due = self._due is not None and time.monotonic() >= self._due
        if is_due or not (self.held or self._raised):
            self.check()
        if self._due is None:
            self._due = time.monotonic() + HELD_S
            with sigmask(signal.SIG_BLOCK, *ENDING):  # in that thread: they are the main thread's
                _thread.start_new_thread(self._insist, (number, self._due))  # takes no lock, as a handler must not

    def check(self) -> None:
        if self.held and signal.sigtimedwait({signal.SIGTERM}, 0):
            self._noted = True
        if self._noted:
            self._raised, self._due = True, None
            raise KeyboardInterrupt

    def close(self) -> None:
        self._due = None

    def _insist(self, number: int, due: float) -> None:
        while self._due == due:
            if time.monotonic() >= due:
                signal.pthread_kill(threading.main_thread().ident or 0, number)
                return
            time.sleep(0.1)


_listener: _Listener | None = None


def listen() -> None:
    """From now on, in the main thread, the signals are heard, but for one that is ignored already, as by nohup."""
    global _listener
    _listener = _Listener()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _listener.hear)


def deafen() -> None:
    """From now on the signals do nothing, whatever a library sets as it ends: the process has done all, and leaves."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """The signals are heard inside, in a process that does not listen yet; not outside its main thread, which alone
    can."""
    global _listener
    if _listener is not None or not _in_main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        listen()
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if _listener is not None:
            _listener.close()
        _listener = None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A stretch that no signal breaks off."""
    if (listener := _mine()) is None:
        yield
        return
    listener.held += 1
    try:
        with sigmask(signal.SIG_BLOCK, signal.SIGTERM):
            yield
    finally:
        listener.held -= 1


@contextlib.contextmanager
def let_through() -> Iterator[None]:
    """A stretch of a held one that a signal may break off anywhere: plain Python, which may take long."""
    if (listener := _mine()) is None:
        yield
        return
    before, listener.held = listener.held, 0
    try:
        listener.check()
        with sigmask(signal.SIG_UNBLOCK, signal.SIGTERM):
            yield
    finally:
        listener.held = before


@contextlib.contextmanager
def sigmask(how: int, *numbers: signal.Signals) -> Iterator[None]:
    """This thread blocks, or unblocks, signals for a stretch; threads and processes that it starts inherit that."""
    before = signal.pthread_sigmask(how, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def answered(answer: Callable[[], object]) -> Iterator[None]:
    """A stretch in which a signal calls `answer`, between any two steps of the main thread, and raises nothing."""
    if (listener := _mine()) is None:
        yield
        return
    listener.answer = answer
    try:
        yield
    finally:
        listener.answer = None


def check() -> None:
    """Raises KeyboardInterrupt if a signal has come."""
    if (listener := _mine()) is not None:
        listener.check()


def _mine() -> _Listener | None:
    """None where nobody listens, and outside the main thread, which no signal breaks off."""
    return _listener if _in_main_thread() else None


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
