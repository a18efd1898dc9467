"""The processes of a host: how they are started, what their end means, and how they are ended.

Each stands in a session of its own, so a Ctrl-C at the terminal reaches the driver alone; each dies with its agent, by
the kernel's parent-death signal and by the end of its pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.program import program
from backends.registry import FAMILIES, find_family, process_environment
from bridge.port.pipe import Pipe
from bridge.words.word import Answer, Order, unexpected
from hetero.cluster.control.events import Severity
from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import LOOPBACK, FleetPool

ENDING_S = 3.0
_SIOCGIFADDR = 0x8915


def environment(pool: FleetPool, address: str | None, devices: Sequence[str] | None = None) -> dict[str, str]:
    """The variables of a pool's processes: the agent's own, the family's, ours, and above all the pool's."""
    family = find_family(pool.family)
    driven = "cpu" if pool.emulated else pool.family
    ours = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TORCH_GLOO_LAZY_INIT": "0"}
    if gloo := "lo" if pool.on_one_host else pool.interface or interface_of(address or LOOPBACK):
        ours["GLOO_SOCKET_IFNAME"] = gloo
    if pool.interface and family.interface:
        ours[family.interface] = pool.interface
    if pool.emulated:
        every_family = [*FAMILIES.values(), family]
        ours |= {variable: "" for one in every_family for variable in one.visible_devices}
    return {**os.environ, **process_environment(driven, devices), **ours, **pool.variables}


def forks(pool: FleetPool) -> bool:
    """Whether the pool's ranks may be forked from a process that has imported torch; emulated chips have no plug-in."""
    return pool.emulated or find_family(pool.family).forks


def interface_of(address: str) -> str | None:
    """The network interface that bears this IPv4 address as its first."""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, contextlib.suppress(OSError):
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("40s", name.encode()))
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


class Helper:
    """A process that the agent talks to over a pipe: its endpoint or its fork server."""

    def __init__(self, name: str, module: str, arguments: list[str], pool: FleetPool, variables: Mapping[str, str]):
        self.name = name
        self._owes: list[type[Answer]] = []
        self.pipe, theirs = Pipe.pair()
        python = os.path.expanduser(pool.python or sys.executable)
        command = program(module, "--fd", str(theirs.fileno()), *arguments, python=python)
        try:
            self._process = subprocess.Popen(
                command,
                env=dict(variables),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self.pipe.close()
            rule = f"the interpreter cannot be started on this host: {error.strerror}"
            raise ClusterError(f"pools.{pool.name}.env.python", python, rule, "give one that exists there") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, order: Order[Any], fds: Sequence[int] = ()) -> None:
        """Sends an order, and descriptors with it."""
        self._owes.append(order.answer)
        self.pipe.send_word(order, fds)

    def answered(self, answer: Answer) -> None:
        """Raises WordError where nobody asked for that."""
        if type(answer) not in self._owes:
            raise unexpected(answer, "nobody asked for it")
        self._owes.remove(type(answer))

    def ask_to_end(self) -> None:
        """The first half of `end`, so that several processes can end at the same time."""
        self.pipe.close()

    def end(self) -> None:
        """Lets the process end at the end of its pipe, or kills it. It is gone when this returns."""
        self.ask_to_end()
        if self.status(ENDING_S) is None:
            self._process.kill()
            self._process.wait()

    def status(self, wait_s: float) -> int | None:
        """How it ended, negative for a signal; None if it still runs after `wait_s` seconds."""
        try:
            return self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None


def obituary(status: int | None) -> tuple[Severity, str]:
    """What an exit status (negative: a signal) tells."""
    if status is None:
        return Severity.DIED, "closed its pipe but still runs"
    if status >= 0:
        return Severity.DIED, f"ended with exit status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    return (Severity.ABORTED if name == "SIGABRT" else Severity.DIED), f"was killed by {name}"


def process_state(pid: int) -> str:
    """What the kernel says of a process, in words; empty if it says nothing."""
    words = {"R": "is computing", "S": "is waiting", "D": "is stuck in the kernel", "T": "is stopped", "Z": "is dead"}
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return words.get(letter, "")
