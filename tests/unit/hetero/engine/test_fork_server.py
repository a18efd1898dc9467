"""How ranks are born: forked from what has imported their code, or each as a program of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.program import program
from bridge.errors import PipeClosed, ReleaseDiffers
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from hetero.words.fork_server import Exited, Fork
from tests.patience import WAIT_S
from tests.unit.hetero.engine.born_rank import Go

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
MAIN = "tests.unit.hetero.engine.born_rank:main"
BIRTHS = pytest.mark.parametrize("births", [(), ("--afresh",)], ids=["forked", "afresh"])


class Served:
    """A fork server with two ranks."""

    def __init__(self, births: tuple[str, ...], main: str = MAIN) -> None:
        self.control, theirs = Pipe.pair()
        command = program("hetero.engine.fork_server", f"--fd={theirs.fileno()}", f"--main={main}", *births)
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=variables, start_new_session=True, stdin=subprocess.DEVNULL
        )
        theirs.close()
        pairs = [(Pipe.pair(), Pipe.pair()) for _ in range(2)]
        self.agents = [agent for (agent, _), _ in pairs]
        self.ports = [port for _, (port, _) in pairs]
        given = [pipe for (_, agent), (_, port) in pairs for pipe in (agent, port)]
        ranks = tuple(RankId("pool", index) for index in range(2))
        self.control.send_word(Fork(ranks), [pipe.fileno() for pipe in given])
        for pipe in given:
            pipe.close()

    def close(self) -> None:
        for pipe in (self.control, *self.agents, *self.ports):
            pipe.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def served(births: tuple[str, ...]) -> Iterator[Served]:
    served = Served(births)
    yield served
    served.close()


def heard(pipe: Pipe) -> Any:
    return pipe.recv_word(WAIT_S)[0]


@BIRTHS
def test_a_rank_afresh_imports_its_own_code_and_is_a_child_like_any_other(
    served: Served, births: tuple[str, ...]
) -> None:
    server = served.process.pid
    told = [heard(agent) for agent in served.agents]
    assert heard(served.control).pids == {index: one.pid for index, one in enumerate(told)}
    assert [str(one.rank) for one in told] == ["pool:0", "pool:1"]
    assert [one.imported_by for one in told] == [one.pid if births else server for one in told]
    assert {(one.parent, one.session, one.umask & 0o077) for one in told} == {(server, server, 0o077)}
    assert {one.descriptors for one in told} == {6}, "three of any program, its two, and this look"
    assert all("hetero.engine.fork_server" in one.command for one in told)


@BIRTHS
def test_ends_and_errors_are_told(served: Served) -> None:
    agents = {heard(agent).rank.index: agent for agent in served.agents}
    heard(served.control)
    agents[0].send_word(Go(status=3))
    assert heard(served.control) == Exited(RankId("pool", 0), 3)
    agents[1].send_word(Go(status=None))
    assert heard(agents[1]).error.message == "a mistake of its own"
    assert heard(served.control) == Exited(RankId("pool", 1), 1)


@BIRTHS
@pytest.mark.parametrize("end", ["killed", "told"])
def test_ranks_end_with_their_fork_server(served: Served, end: str) -> None:
    for agent in served.agents:
        heard(agent)
    served.process.send_signal(signal.SIGKILL) if end == "killed" else served.control.close()
    for agent in served.agents:
        with pytest.raises(PipeClosed):
            agent.recv_word(WAIT_S)


OLDER = """
import runpy
from bridge.words import release
release.RELEASE = "0.0.9"
runpy.run_module("hetero.engine.fork_server", run_name="__main__", alter_sys=True)
"""


def test_a_fork_server_that_hears_another_release_says_its_own_and_ends_without_a_trace() -> None:
    control, theirs = Pipe.pair()
    command = [sys.executable, "-c", OLDER, f"--fd={theirs.fileno()}", "--main=nobody:main", "--afresh"]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, stderr=subprocess.PIPE)
    theirs.close()
    control.send_word(Fork(()))
    with pytest.raises(ReleaseDiffers) as caught:
        control.recv_word(WAIT_S)
    assert caught.value.value == "0.0.9"
    with pytest.raises(PipeClosed):
        control.recv_word(WAIT_S)
    assert process.communicate(timeout=WAIT_S)[1] == b""
    assert process.returncode == 1
    control.close()


def test_code_that_cannot_be_imported_afresh_is_the_rank_s_error() -> None:
    served = Served(("--afresh",), "tests.unit.hetero.engine.nobody:main")
    try:
        assert heard(served.agents[1]).error.type == "ModuleNotFoundError"
    finally:
        served.close()


def test_a_fork_server_that_forks_nothing_of_torch_has_not_imported_it() -> None:
    born = "from hetero.engine.fork_server import afresh; afresh('hetero.engine.rank:main')"
    code = f"{born}; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
