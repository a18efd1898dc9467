"""A signal meets Ray as it starts, which must not be broken off. Ray itself is not there."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._private import services
from ray._private import utils as ray_utils

from hetero.cluster.errors import RayFailure
from hetero.cluster.onray import runtime as subject
from hetero.cluster.onray.reaper import MARK
from hetero.errors import exit_code
from hetero.interrupts import ENDING, check, held, listening
from tests.patience import WAIT_S

SIG_IGN = 1


class Ray:
    """Does in `init` what `arrives` says, as Ray would in its own."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.arrives: Callable[[], object] = lambda: None
        self.ends: Callable[[], object] = lambda: None
        self.reaper = types.SimpleNamespace(dismiss=lambda: self.seen.append("dismissed"))

    def init(self, _temp_dir: str = "", **_: Any) -> None:
        self.marked, self.folder = os.environ[MARK], Path(_temp_dir)
        self.arrives()
        self.seen.append("up")

    def shutdown(self) -> None:
        self.ends()
        self.seen.append("down")

    def is_initialized(self) -> bool:
        return False

    def sweep(self, mark: str, folder: Path, grace_s: float = 3.0) -> None:
        assert mark == self.marked
        assert folder == self.folder.parent
        shutil.rmtree(folder, ignore_errors=True)
        self.seen.append("swept" if grace_s else "swept at once")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    ray = Ray()
    monkeypatch.setattr(subject, "ray", ray)
    monkeypatch.setattr(subject, "sweep", ray.sweep)
    monkeypatch.setattr(subject, "Reaper", lambda *_: ray.reaper)
    before = [signal.getsignal(number) for number in ENDING]
    yield ray
    assert [signal.getsignal(number) for number in ENDING] == before


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_while_it_starts_waits_until_it_stands_and_ends_it(ray: Ray, number: signal.Signals) -> None:
    ray.arrives = lambda: signal.pthread_kill(threading.get_ident(), number)
    with pytest.raises(KeyboardInterrupt), subject.ray_runtime():
        ray.seen.append("used")
    assert ray.seen == ["up", "down", "swept", "dismissed"]


def test_rays_own_handlers_are_kept_off(ray: Ray) -> None:
    def arrives() -> None:
        """In this thread, lest another of the tests' own gets it, and where Ray's native handler is the system's."""
        ray_utils.set_sigterm_handler(signal.SIG_IGN)
        ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(SIG_IGN))
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    ray.arrives = arrives
    with pytest.raises(KeyboardInterrupt), subject.ray_runtime():
        ray.seen.append("used")
    assert ray.seen == ["up", "down", "swept", "dismissed"]


def test_nor_does_it_leave_none(ray: Ray) -> None:
    def ends() -> None:
        ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(SIG_IGN))
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    ray.ends = ends
    with listening(), held():
        with subject.ray_runtime():
            pass
        with pytest.raises(KeyboardInterrupt):
            check()


def test_rays_processes_stand_apart_and_can_be_ended_by_sigterm(ray: Ray) -> None:
    def starts() -> None:
        process = services.ConsolePopen(["sleep", "60"])
        assert os.getsid(process.pid) == process.pid
        process.terminate()
        assert process.wait(WAIT_S) == -signal.SIGTERM

    ray.arrives = starts
    with subject.ray_runtime():
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_what_else_the_driver_starts_is_none_of_rays(ray: Ray) -> None:
    with subject.ray_runtime():
        assert MARK not in os.environ
        assert "RAY_AUTH_TOKEN" not in os.environ


def test_rays_folder_lies_where_no_other_user_comes(ray: Ray) -> None:
    """Ray opens its own to everybody."""
    ray.arrives = lambda: ray.seen.append(oct(ray.folder.parent.stat().st_mode & 0o777))
    with subject.ray_runtime():
        assert not ray.folder.exists(), "Ray makes it"
        assert len(str(ray.folder)) <= 40, "its sockets need 66 characters of the 107 that a path may have"
    assert ray.seen[0] == "0o700"


def test_a_machine_too_busy_for_rays_own_patience_is_tried_again(ray: Ray) -> None:
    refusals = iter([Exception("timed out during startup"), RuntimeError("no port")])

    def arrives() -> None:
        for error in refusals:
            raise error

    ray.arrives = arrives
    with subject.ray_runtime():
        ray.seen.append("used")
    assert ray.seen == [*["down", "swept", "dismissed"] * 2, "up", "used", "down", "swept", "dismissed"]


def test_a_ray_that_never_starts_is_told(ray: Ray) -> None:
    def arrives() -> None:
        raise Exception("The current node timed out during startup.")

    ray.arrives = arrives
    with pytest.raises(RayFailure, match="in time: The current node timed out") as caught, subject.ray_runtime():
        raise AssertionError
    assert (exit_code(caught.value), caught.value.remedy.split(";")[0]) == (
        1,
        "try again once the machine is less busy",
    )
    assert ray.seen == ["down", "swept", "dismissed"] * subject.ATTEMPTS


def test_a_signal_between_two_attempts_ends_it(ray: Ray) -> None:
    def arrives() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        raise Exception("timed out")

    ray.arrives = arrives
    with pytest.raises(KeyboardInterrupt), subject.ray_runtime():
        raise AssertionError
    assert ray.seen == ["down", "swept", "dismissed"]


def test_a_full_disk_is_told_as_one(ray: Ray) -> None:
    def arrives() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ray.arrives = arrives
    with pytest.raises(OSError, match="No space left"), subject.ray_runtime():
        raise AssertionError
    assert ray.seen == ["swept", "dismissed"]


def test_a_ray_that_answers_no_more_is_cleared_away_and_not_waited_for(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    ray.ends = never.wait
    monkeypatch.setattr(subject, "LEAVING_S", 0.01)
    monkeypatch.setattr(subject.atexit, "register", lambda end: ray.seen.append(end.__name__))
    with pytest.raises(RayFailure), subject.ray_runtime():
        raise RayFailure("Ray", "control store", "must run", "start again")
    assert ray.seen == ["up", "swept at once", "_end_at_once", "swept", "dismissed"]
    never.set()
