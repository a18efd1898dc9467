"""How an endpoint process ends, and what it survives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import pytest

from bridge.port.pipe import Pipe
from bridge.system.linux import NICE
from bridge.words.endpoint import AskStats, Failed, Listen, Listening, Stats, Stop
from bridge.words.error import ErrorReport
from bridge.words.word import Word
from tests.patience import WAIT_S

LISTEN = Listen("a@0", "127.0.0.1", ())

# starts an endpoint, leaks its control pipe to a process that outlives us, tells both pids and waits to be killed
PARENT = """
import socket, subprocess, sys, time
from bridge.port.pipe import Pipe
from bridge.words.endpoint import Listen
ours, theirs = socket.socketpair()
command = [sys.executable, "-m", "bridge.endpoint", "--fd", str(theirs.fileno())]
endpoint = subprocess.Popen(command, pass_fds=[theirs.fileno()])
control = Pipe(ours)
control.send_word(Listen("a@0", "127.0.0.1", ()))
control.recv_word(60)
leak = subprocess.Popen(["sleep", "60"], pass_fds=[control.fileno()], stdout=subprocess.DEVNULL)
print(endpoint.pid, leak.pid, flush=True)
time.sleep(60)
"""


def start() -> tuple[subprocess.Popen[bytes], Pipe]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "bridge.endpoint", "--fd", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    return process, Pipe(ours)


def gone(pid: int) -> bool:
    """Ended, even if nobody has asked for its status yet."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_it_dies_with_its_parent_even_if_the_control_pipe_lives_on() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    endpoint, leak = map(int, parent.stdout.readline().split())
    try:
        parent.kill()
        parent.wait()
        end = time.monotonic() + WAIT_S
        while not gone(endpoint):
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.kill(leak, signal.SIGKILL)
        parent.stdout.close()


@pytest.mark.slow
def test_it_survives_ctrl_c_and_the_end_of_the_thread_that_started_it() -> None:
    started: list[tuple[subprocess.Popen[bytes], Pipe]] = []
    thread = threading.Thread(target=lambda: started.append(start()))
    thread.start()
    thread.join()
    [(process, control)] = started
    control.send_word(LISTEN)
    assert isinstance(control.recv_word(WAIT_S)[0], Listening)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    control.send_word(AskStats())
    assert isinstance(control.recv_word(WAIT_S)[0], Stats)
    control.send_word(Stop())
    assert process.wait(WAIT_S) == 0
    control.close()


@pytest.mark.slow
def test_its_threads_go_before_those_that_compute_where_that_is_allowed() -> None:
    attempt = subprocess.run([sys.executable, "-c", f"import os; os.nice({NICE})"], stderr=subprocess.DEVNULL)
    process, control = start()
    control.send_word(replace(LISTEN, schemes=("zmq",)))
    control.recv_word(WAIT_S)
    threads = [int(thread) for thread in os.listdir(f"/proc/{process.pid}/task")]
    niceness = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    assert len(threads) > 1
    assert niceness == {max(-20, os.getpriority(os.PRIO_PROCESS, 0) + NICE * (attempt.returncode == 0))}
    control.close()
    assert process.wait(WAIT_S) == 0


@dataclass(frozen=True)
class Dance(Word):
    """Nothing that an endpoint has heard of."""


def test_what_makes_no_sense_is_reported_and_survived() -> None:
    process, control = start()

    def failure(word: Word) -> ErrorReport:
        control.send_word(word)
        failed = control.recv_word(WAIT_S)[0]
        assert isinstance(failed, Failed)
        return failed.error

    assert failure(Dance()).value == "Dance"
    assert failure(Listening({}, "")).value == "Listening"
    assert "did you mean grpc" in str(failure(replace(LISTEN, schemes=("gprc",))).remedy)
    assert failure(replace(LISTEN, host="not.a.host.invalid", schemes=("zmq",))).key == "host"
    control.close()
    assert process.wait(WAIT_S) == 0
