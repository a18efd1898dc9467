"""Whose fault a wait was."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from backends.backend import Stopwatch
from backends.cpu import CpuBackend
from hetero.transfer.waits import Waits


class Watch(Stopwatch):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def paused(self, part: float) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> None: ...

    def seconds(self) -> float:
        return self._seconds


def test_what_was_waited_while_a_message_was_on_its_way_is_the_link_s_and_the_rest_its_sender_s() -> None:
    waits = Waits(CpuBackend())
    waits.book([Watch(0.3), Watch(0.2)], transfer_s=0.4, crossed=waits.received["a"])
    waits.book([Watch(0.1)], transfer_s=7.0, crossed=waits.received["a"])
    waits.book([Watch(1.0)])
    assert waits.link_s == 0
    waits.settle()
    assert (waits.link_s, waits.work_s) == pytest.approx((0.5, 1.1))
    assert waits.received["a"].waited_s == pytest.approx(0.5)
    waits.settle()
    assert waits.link_s == pytest.approx(0.5)


def test_bytes_alone_are_counted_where_that_is_asked_for() -> None:
    waits = Waits(CpuBackend())
    with waits.bytes_alone():
        waits.received["a"].nbytes += 7
        waits.book([Watch(0.3)], transfer_s=0.4, crossed=waits.received["a"])
    waits.book([Watch(1.0)])
    waits.settle()
    assert (waits.link_s, waits.work_s, waits.received["a"].nbytes) == (0.0, 1.0, 7)


def test_watches_are_read_only_when_they_are_settled() -> None:
    late: Any = Watch(1.0)
    late.seconds = lambda: pytest.fail("the chip has not come so far")
    waits = Waits(CpuBackend())
    waits.book([late])
    waits.clear()
    waits.settle()
