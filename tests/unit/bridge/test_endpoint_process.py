"""How an endpoint process ends, and what it survives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from bridge.linux import NICE
from bridge.pipe import Pipe
from tests.patience import WAIT_S

LISTEN = {"do": "listen", "endpoint": "a@0", "host": "127.0.0.1", "schemes": []}

# starts an endpoint, leaks its control pipe to a process that outlives us, tells both pids and waits to be killed
PARENT = """
import socket, subprocess, sys, time
from bridge.pipe import Pipe
ours, theirs = socket.socketpair()
command = [sys.executable, "-m", "bridge.endpoint", "--fd", str(theirs.fileno())]
endpoint = subprocess.Popen(command, pass_fds=[theirs.fileno()])
control = Pipe(ours)
control.send({"do": "listen", "endpoint": "a@0", "host": "127.0.0.1", "schemes": []})
control.recv(60)
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


def test_it_dies_with_its_parent_even_if_the_control_pipe_lives_on() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    endpoint, leak = map(int, parent.stdout.readline().split())
    try:
        parent.kill()
        parent.wait()
        end = time.monotonic() + 5
        while not gone(endpoint):
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.kill(leak, signal.SIGKILL)
        parent.stdout.close()


def test_it_survives_ctrl_c_and_the_end_of_the_thread_that_started_it() -> None:
    started: list[tuple[subprocess.Popen[bytes], Pipe]] = []
    thread = threading.Thread(target=lambda: started.append(start()))
    thread.start()
    thread.join()
    [(process, control)] = started
    control.send(LISTEN)
    assert control.recv(WAIT_S)[0]["report"] == "listening"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    control.send({"do": "stats"})
    assert control.recv(WAIT_S)[0]["report"] == "stats"
    control.send({"do": "stop"})
    assert process.wait(WAIT_S) == 0
    control.close()


def test_its_threads_go_before_those_that_compute_where_that_is_allowed() -> None:
    attempt = subprocess.run([sys.executable, "-c", f"import os; os.nice({NICE})"], stderr=subprocess.DEVNULL)
    process, control = start()
    control.send(LISTEN | {"schemes": ["zmq"]})
    control.recv(WAIT_S)
    threads = [int(thread) for thread in os.listdir(f"/proc/{process.pid}/task")]
    niceness = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    assert len(threads) > 1
    assert niceness == {max(-20, os.getpriority(os.PRIO_PROCESS, 0) + NICE * (attempt.returncode == 0))}
    control.close()
    assert process.wait(WAIT_S) == 0


def test_a_request_that_makes_no_sense_is_reported_and_survived() -> None:
    process, control = start()
    control.send({"do": "dance"})
    assert control.recv(WAIT_S)[0]["error"]["value"] == "dance"
    control.send(LISTEN | {"schemes": ["gprc"]})
    assert "did you mean grpc" in control.recv(WAIT_S)[0]["error"]["remedy"]
    control.send(LISTEN | {"host": "not.a.host.invalid", "schemes": ["zmq"]})
    assert control.recv(WAIT_S)[0]["error"]["key"] == "host"
    control.close()
    assert process.wait(WAIT_S) == 0
