"""Forks the ranks of a host: `python -m hetero.engine.fork_server --fd N --main module:function`.

Imports the rank's code, and torch with it, once, and forks the ranks before any thread is started or device is touched:
eight ranks are up in the time of one import and share its memory. `Fork` on the control pipe N asks for them, `Exited`
tells of their ends (`hetero/words/fork_server.py`).

With `--afresh` it imports nothing ahead, and what it forks runs as a program of its own: there are plug-ins for torch
that a fork after their import would leave broken. Such a rank imports torch itself, which takes it seconds more.

At the end of the control pipe, and at the death of the agent, it and its ranks end.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from backends.program import program
from backends.versions import interpreter
from bridge.errors import PipeClosed, ReleaseDiffers
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.words.endpoint import Failed
from bridge.words.error import ErrorReport
from bridge.words.word import unexpected
from hetero.private import keep_private
from hetero.words.fork_server import Exited, Fork, Forked

if TYPE_CHECKING:
    from bridge.port.port import Port

RankMain = Callable[[RankId, Pipe, "Port"], None]
Child = Callable[[RankId, int, int], int]
"""What a forked child does, given the descriptors of its agent and its port; returns its exit status, if at all."""

_PR_SET_PDEATHSIG = 1


class ForkServer:
    """Forks ranks and waits for their ends. Single-threaded, as fork asks."""

    def __init__(self, control: Pipe, child: Child) -> None:
        self._control, self._child = control, child
        self._children: dict[int, RankId] = {}
        self._parent = os.getpid()
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)

    def run(self) -> None:
        """Until the control pipe ends."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        try:
            while True:
                if not self._control.pending():
                    self._sleep()
                self._tell_ends()
                self._obey()
        except PipeClosed:
            self._end_children()

    def _sleep(self) -> None:
        woken = self._woken.fileno()
        if woken in select.select([self._control.fileno(), woken], [], [])[0]:
            self._woken.recv(4096)

    def _obey(self) -> None:
        try:
            word, fds = self._control.recv_word(0)
        except TimeoutError:
            return
        if not isinstance(word, Fork):
            raise unexpected(word)
        pairs = zip(word.ranks, fds[::2], fds[1::2], strict=True)
        pids = {rank.index: self._fork(rank, agent_fd, port_fd, fds) for rank, agent_fd, port_fd in pairs}
        for fd in fds:
            os.close(fd)
        self._control.send_word(Forked(pids, interpreter()))

    def _fork(self, rank: RankId, agent_fd: int, port_fd: int, fds: Sequence[int]) -> int:
        pid = os.fork()
        if pid == 0:
            self._become(rank, agent_fd, port_fd, fds)
        self._children[pid] = rank
        return pid

    def _become(self, rank: RankId, agent_fd: int, port_fd: int, fds: Sequence[int]) -> NoReturn:
        """In the child: keep only what is its own, and never return into the server's code."""
        status = 1
        try:
            die_with(self._parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for thing in (self._control, self._woken, self._waking):
                thing.close()
            for fd in set(fds) - {agent_fd, port_fd}:
                os.close(fd)
            status = self._child(rank, agent_fd, port_fd)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _tell_ends(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            rank = self._children.pop(pid)
            self._control.send_word(Exited(rank, os.waitstatus_to_exitcode(status)))

    def _end_children(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)


def die_with(parent: int) -> None:
    """The kernel kills this process when its parent ends, even while it is stuck in a vendor's library."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def forked(main: str) -> Child:
    """Ranks share what is imported here."""
    gc.disable()  # a fifth of the time of an import of torch, in which nothing is garbage
    rank_main = imported(main)
    gc.collect()
    gc.freeze()  # keeps the shared pages of the imports shared
    gc.enable()
    return lambda rank, agent_fd, port_fd: run_rank(rank_main, rank, Pipe.from_fd(agent_fd), port_fd)


def afresh(main: str) -> Child:
    """The child becomes this program anew. Its parent, its session and the death signal stay."""

    def child(rank: RankId, agent_fd: int, port_fd: int) -> NoReturn:
        for fd in (agent_fd, port_fd):
            os.set_inheritable(fd, True)
        mine = (f"--fd={agent_fd}", f"--main={main}", f"--rank={rank}", f"--port={port_fd}")
        command = program("hetero.engine.fork_server", *mine)
        os.execv(command[0], command)

    return child


def imported(main: str) -> RankMain:
    module, _, function = main.partition(":")
    rank_main: RankMain = getattr(importlib.import_module(module), function)
    return rank_main


def run_rank(rank_main: RankMain, rank: RankId, agent: Pipe, port_fd: int) -> int:
    """All of a rank. An error that its main did not report itself is reported here; returns the exit status."""
    from bridge.port.port import Port  # imported already where the rank's main needs it

    try:
        rank_main(rank, agent, Port(socket.socket(fileno=port_fd), rank))
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else 1
    except BaseException as error:
        with contextlib.suppress(PipeClosed):  # the agent is gone: nobody is left to tell
            agent.send_word(Failed(ErrorReport.of(error, "".join(traceback.format_exception(error)))))
        return 1
    return 0


def serve(options: argparse.Namespace) -> int:
    die_with(os.getppid())
    keep_private()
    child = (afresh if options.afresh else forked)(options.main)
    ForkServer(Pipe.from_fd(options.fd), child).run()
    return 0


def run_afresh(options: argparse.Namespace) -> int:
    """An import that fails is the rank's own error, told like any other."""

    def rank_main(*given: Any) -> None:
        imported(options.main)(*given)

    return run_rank(rank_main, RankId.parse(options.rank), Pipe.from_fd(options.fd), options.port)


def main() -> None:
    """Ends without cleaning up: the kernel takes back what torch holds faster than torch gives it back."""
    parser = argparse.ArgumentParser(description="Forks the ranks of one pool on one host.")
    parser.add_argument("--fd", type=int, required=True, help="the control pipe; a rank's pipe to its agent")
    parser.add_argument("--main", required=True, help="what a rank runs, as module:function")
    parser.add_argument("--afresh", action="store_true", help="no rank is forked from what has imported torch")
    parser.add_argument("--rank", help="be this one, as pool:index, and no fork server")
    parser.add_argument("--port", type=int, help="the socket of its port")
    options = parser.parse_args()
    status = 1
    try:
        status = run_afresh(options) if options.rank else serve(options)
    except ReleaseDiffers:
        pass  # the agent has heard ours too, and tells it
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
