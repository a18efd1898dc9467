"""A signal ends what may be broken off at once, and what may not once it is done."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from hetero import interrupts
from hetero.interrupts import ENDING, answered, check, held, let_through, listening
from tests.architecture.tree import ROOT

every_signal = pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def _handlers_are_as_before() -> Iterator[None]:
    before = [signal.getsignal(number) for number in ENDING]
    yield
    assert [signal.getsignal(number) for number in ENDING] == before


@every_signal
def test_it_is_raised_at_once_where_nothing_is_held(number: signal.Signals) -> None:
    with listening(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


@every_signal
def test_what_is_held_is_raised_by_a_check(number: signal.Signals) -> None:
    done = []
    with listening(), held():
        with held():
            signal.raise_signal(number)
            done.append("inner")
        done.append("outer")
        with pytest.raises(KeyboardInterrupt):
            check()
    assert done == ["inner", "outer"]


def test_a_check_without_a_signal_raises_nothing() -> None:
    check()
    with listening(), held():
        check()


def test_a_second_one_breaks_off_no_clean_up() -> None:
    def clean() -> None:
        signal.raise_signal(signal.SIGINT)
        cleaned.append(True)

    cleaned: list[bool] = []
    with listening(), contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        stack.callback(clean)
        signal.raise_signal(signal.SIGINT)
    assert cleaned


def test_a_stretch_of_a_held_one_can_be_broken_off() -> None:
    with listening(), held():
        with pytest.raises(KeyboardInterrupt), let_through():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # held again


def test_such_a_stretch_does_not_begin_after_a_signal() -> None:
    begun = False
    with listening(), held():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), let_through():
            begun = True
    assert not begun


def test_one_that_somebody_swallowed_is_raised_again() -> None:
    with listening():
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        with held(), pytest.raises(KeyboardInterrupt):
            check()


def test_it_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "HELD_S", 0.05)
    with listening(), held():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60.0)


def test_sigterm_waits_while_it_is_held_in_threads_that_begin_then_too() -> None:
    masks: list[set[int]] = []
    with listening(), held():
        thread = threading.Thread(target=lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        thread.start()
        thread.join()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray leaves it
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.SIGTERM in masks[0]


def test_nor_is_one_that_comes_again_while_the_first_is_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "HELD_S", 0.05)
    with listening():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60.0)


def test_it_can_be_answered_instead() -> None:
    answers = []
    with listening():
        with answered(lambda: answers.append("stop")):
            signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
    assert answers == ["stop"]


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


COMMAND = """
import os, signal, sys, threading, time, types
import hetero.cli.__main__ as command

def run():
    {body}
    return 0

app = types.ModuleType("hetero.cli.app")
app.run = run
sys.modules["hetero.cli.app"] = app
command.LEAVING_S = 0.1
command.main()
"""


def _command(body: str, before: str = "") -> tuple[int, str]:
    """How the command ends whose work is `body`."""
    script = before + COMMAND.format(body=body)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@every_signal
def test_a_command_that_is_interrupted_says_so_in_a_line(number: signal.Signals) -> None:
    assert _command(f"signal.raise_signal({number:d}); time.sleep(60)") == (1, "interrupted\n")


def test_under_nohup_a_command_outlives_its_terminal() -> None:
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    assert _command("signal.raise_signal(signal.SIGHUP)", ignored) == (0, "")


def test_what_comes_after_its_work_is_done_changes_nothing() -> None:
    late = "import atexit, os, signal; atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))"
    assert _command("pass", late) == (0, "")


def test_a_thread_that_a_library_left_behind_does_not_hold_it() -> None:
    assert _command("threading.Thread(target=time.sleep, args=[60]).start()") == (0, "")
