"""The gate chooses the codec of each message."""

from __future__ import annotations

import pytest

from bridge.codec import CODECS
from hetero.transfer.gate import EVERY, HOLD, Fallback, Gate

BAD, GOOD = 1.0, 0.001


class Traffic:
    """Sends messages of a given error through a gate, as a writer does."""

    def __init__(self, name: str) -> None:
        self.told: list[Fallback] = []
        self.wanted = CODECS[name]
        self.gate = Gate(self.wanted, "float32", self.told.append)

    def send(self, *errors: float) -> list[str]:
        """The codec of each message. A safer codec than the wanted one makes no error."""
        return [self._send(error) for error in errors]

    def _send(self, error: float) -> str:
        self.gate.begin()
        while self.gate.due and not self.gate.allows(self._error(error)):
            pass
        return self.gate.codec.name

    def _error(self, error: float) -> float:
        return error if self.gate.codec is self.wanted else 0.0


@pytest.mark.parametrize("name", CODECS)
def test_small_errors_pass(name: str) -> None:
    traffic = Traffic(name)
    assert set(traffic.send(*[GOOD] * (3 * EVERY))) == {name}
    assert traffic.told == []


def test_one_message_in_so_many_is_measured() -> None:
    gate = Gate(CODECS["int8"], "float32", lambda _: None)
    due = []
    for _ in range(3 * EVERY):
        gate.begin()
        due.append(gate.due)
    assert [number for number, is_due in enumerate(due) if is_due] == [0, EVERY, 2 * EVERY]


def test_a_large_error_falls_back_for_a_while_and_is_told_once() -> None:
    traffic = Traffic("int8")
    sent = traffic.send(BAD, *[GOOD] * (HOLD + 5))
    assert sent == ["bf16"] * (1 + HOLD) + ["int8"] * 5
    limit = CODECS["int8"].error_limit
    assert traffic.told == [Fallback("int8", "bf16", BAD, limit, HOLD)]


def test_a_codec_that_fails_again_is_left_alone_for_twice_as_long() -> None:
    traffic = Traffic("fp8")
    traffic.send(*[BAD] * (1 + HOLD + 1 + 2 * HOLD + 1))
    assert [event.messages for event in traffic.told] == [HOLD, 2 * HOLD, 4 * HOLD]


def test_after_a_good_measurement_a_failure_is_a_first_one_again() -> None:
    traffic = Traffic("int8")
    traffic.send(BAD, *[GOOD] * HOLD, GOOD)
    while len(traffic.told) < 2:
        traffic.send(BAD)
    assert [event.messages for event in traffic.told] == [HOLD, HOLD]


def test_where_the_next_codec_errs_as_well_the_last_is_none() -> None:
    told: list[Fallback] = []
    gate = Gate(CODECS["fp8"], "float32", told.append)
    gate.begin()
    while not gate.allows(BAD):
        pass
    assert gate.codec.name == "none"
    assert [(event.codec, event.fallback) for event in told] == [("fp8", "bf16"), ("bf16", "none")]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_codec_that_saves_nothing_is_passed_over(dtype: str) -> None:
    gate = Gate(CODECS["int8"], dtype, lambda _: None)
    gate.begin()
    assert not gate.allows(BAD)
    assert gate.codec.name == "none"
