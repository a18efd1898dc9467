"""How the ranks of a pool meet, with strangers about. Each rank is a process; the parent hands them where to meet."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import psutil
import pytest
import torch
import torch.distributed as dist

from backends.cpu import CpuBackend
from bridge.rank import RankId
from hetero.engine.world import World
from tests.patience import WAIT_S

pytestmark = pytest.mark.slow
SECRET = "5e" * 32
MEETING = "hetero-world"


class Ranks:
    """Two ranks. Each call is `(method of Here, arguments)`."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed"])
        self.memory = os.memfd_create(MEETING)
        self._pipes, self.processes = [], []
        for index in range(2):
            ours, theirs = context.Pipe()
            self.processes.append(context.Process(target=_serve, args=(index, theirs), daemon=True))
            self.processes[-1].start()
            theirs.close()
            self._pipes.append(ours)

    @property
    def memory_path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.memory}"

    def ask(self, index: int, what: str, *arguments: object) -> None:
        self._pipes[index].send((what, *arguments))

    def hear(self, index: int) -> object:
        assert self._pipes[index].poll(WAIT_S), f"rank {index} does not answer"
        return self._pipes[index].recv()

    def all(self, what: str, *arguments: object) -> list[object]:
        for index in range(2):
            self.ask(index, what, *arguments)
        return [self.hear(index) for index in range(2)]

    def listening(self, index: int) -> list[tuple[str, int]]:
        found = psutil.Process(self.processes[index].pid).net_connections("tcp")
        return [tuple(one.laddr) for one in found if one.status == psutil.CONN_LISTEN]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        os.close(self.memory)


class Here:
    """What a rank does when it is asked."""

    def __init__(self, index: int) -> None:
        self.world = World(CpuBackend(), RankId("pool", index), 2)

    def open(self) -> str:
        return self.world.open("127.0.0.1")

    def join(self, address: str) -> None:
        self.world.join(address, SECRET)

    def join_here(self, memory: str) -> None:
        self.world.join_here(os.open(memory, os.O_RDWR))

    def sums(self) -> list[float]:
        """Over the world, over a group of both, and over one that only rank 0 is in."""
        groups = [None, self.world.group([0, 1]), self.world.group([0])]
        one = torch.ones(1)
        for group in groups[: 3 - self.world.rank.index]:
            dist.all_reduce(one, group=group)
        return one.tolist()


def _serve(index: int, pipe: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    here = Here(index)
    while True:
        what, *arguments = pipe.recv()
        pipe.send(getattr(here, what)(*arguments))


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    both = Ranks()
    yield both
    both.close()


def test_a_pool_on_several_hosts_meets_on_one_address_under_secret_keys(ranks: Ranks) -> None:
    ranks.ask(0, "open")
    address = str(ranks.hear(0))
    host, _, port = address.rpartition(":")
    assert ranks.listening(0) == [(host, int(port))]
    ranks.all("join", address)
    store = dist.TCPStore(host, int(port), is_master=False)
    assert not store.check(["world 0/default_pg/0//0", "default_pg/0//0"])
    assert ranks.all("sums") == [[4.0], [4.0]]


def test_who_comes_between_two_ranks_is_left_out(ranks: Ranks) -> None:
    ranks.ask(0, "join_here", ranks.memory_path)
    until = time.monotonic() + WAIT_S
    while not (doors := ranks.listening(0)):
        assert time.monotonic() < until
    with socket.create_connection(doors[0]) as stranger:
        stranger.sendall(bytes(8))  # as the first who should come
        ranks.ask(1, "join_here", ranks.memory_path)
        assert [ranks.hear(0), ranks.hear(1)] == [None, None]
        assert ranks.all("sums") == [[4.0], [4.0]]
        stranger.settimeout(WAIT_S)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b"", "the first world is gone, and he with it"
