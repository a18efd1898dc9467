"""A session whose hosts say nothing: a signal ends its waiting, but not its end; and what is over stays so."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from hetero.cluster.control import events as ev
from hetero.cluster.control import instructions as ins
from hetero.cluster.session import Session
from hetero.errors import ExplainedError
from hetero.interrupts import held, listening
from hetero.monitoring.notice import Notice
from tests.unit.hetero.cluster.fleets import three_families


class Silent:
    """Carries nothing. A signal arrives while the driver waits for events."""

    def __init__(self) -> None:
        self.closed = False

    def start(self, hosts: Any) -> None: ...

    def send(self, host: str, order: Any) -> None: ...

    def receive(self, timeout: float) -> list[ev.Event]:
        signal.raise_signal(signal.SIGTERM)
        return []

    def close(self) -> None:
        self.closed = True


def test_waiting_ends_and_with_it_the_agents() -> None:
    silent = Silent()
    with listening(), held(), pytest.raises(KeyboardInterrupt):
        Session.start(three_families(), silent)
    assert silent.closed


def test_a_good_end_is_not_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent()
    session = Session(three_families(), silent, None, None)
    ticks = iter([[], [], [ins.Done(None)]])
    monkeypatch.setattr(session._controller, "handle", lambda event: next(ticks))
    with listening(), held():
        session.close()
    assert silent.closed


def test_what_is_over_says_so_at_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(three_families(), Silent(), None, None)
    root = ev.Trouble("nvidia@0", "rank", ev.Severity.OWN_ERROR, "failed: a mistake")
    monkeypatch.setattr(session._controller, "handle", lambda event: [ins.Fail(root, ())])
    first, again = (_raised(lambda: session.run(1)) for _ in range(2))
    assert first is again
    session.close()
    assert _raised(lambda: session.run(1)) is first

    closed = Session(three_families(), Silent(), None, None)
    closed.abandon()
    assert str(_raised(lambda: closed.run(1))).startswith("session: 'closed'")


def test_so_it_does_if_a_listener_fails_when_it_hears_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(_: object) -> None:
        raise OSError("no space left")

    silent = Silent()
    session = Session(three_families(), silent, full_disk, None)
    root = ev.Trouble("nvidia@0", "rank", ev.Severity.OWN_ERROR, "failed: a mistake")
    monkeypatch.setattr(session._controller, "handle", lambda event: [Notice("failed", {}), ins.Fail(root, ())])
    with pytest.raises(OSError, match="no space"):
        session.run(1)
    assert silent.closed
    _raised(lambda: session.run(1))
    session.close()


def _raised(call: Callable[[], object]) -> ExplainedError:
    with pytest.raises(ExplainedError) as caught:
        call()
    return caught.value
