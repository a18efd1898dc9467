"""Law 11 for the ranks of a pool: whoever else is on the machine finds no socket of theirs that takes him."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterable, Iterator

import psutil
import pytest

from tests.distributed.cases import find
from tests.distributed.fleet import POOLS, Standing

BURST = 200
PATIENCE_S = 0.3
CASE = find("tp grows")


def ranks(fleet: Standing) -> Iterator[psutil.Process]:
    for pool in POOLS:
        pids = fleet.session.pids(f"{pool}@0")
        yield from (psutil.Process(pid) for name, pid in pids.items() if ":" in name)


def listening(rank: psutil.Process) -> list[tuple[str, int]]:
    return [tuple(one.laddr) for one in rank.net_connections("tcp") if one.status == psutil.CONN_LISTEN]


def taken(addresses: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those where a stranger gets a connection. What drops him without a word never answers, however long he waits."""
    with contextlib.ExitStack() as stack:
        strangers = {address: stack.enter_context(called(address)) for address in addresses}
        time.sleep(PATIENCE_S)
        return sorted(address for address, one in strangers.items() if _connected(one))


def called(address: tuple[str, int]) -> socket.socket:
    """A stranger's socket, on its way there."""
    one = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    one.setblocking(False)
    one.connect_ex(address)
    return one


def _connected(one: socket.socket) -> bool:
    try:
        one.getpeername()
    except OSError:
        return False
    return True


@pytest.fixture
def trained(fleet: Standing) -> Standing:
    fleet.train(CASE.job, CASE.plan)
    return fleet


def test_no_socket_of_a_rank_takes_a_stranger(trained: Standing) -> None:
    doors = {address for rank in ranks(trained) for address in listening(rank)}
    assert doors, "gloo listens"
    assert {host for host, _ in doors} == {"127.0.0.1"}
    assert not taken(doors)


def test_the_key_is_in_no_argument_and_no_variable(fleet: Standing) -> None:
    spec = fleet.session.fleet
    secrets = [spec.secret, *(host.secret for host in spec.hosts)]
    assert all(secrets)
    for pid in [pid for host in spec.hosts for pid in fleet.session.pids(host.id).values()]:
        process = psutil.Process(pid)
        told = [*process.cmdline(), *process.environ().values()]
        assert not [secret for secret in secrets if any(secret in text for text in told)], process


@pytest.fixture
def few_descriptors(trained: Standing) -> Iterator[Standing]:
    """Ranks that can open a few more files and no more."""
    limits = {rank.pid: resource.prlimit(rank.pid, resource.RLIMIT_NOFILE) for rank in ranks(trained)}
    for rank in ranks(trained):
        resource.prlimit(rank.pid, resource.RLIMIT_NOFILE, (rank.num_fds() + BURST // 2, limits[rank.pid][1]))
    yield trained
    for pid, limit in limits.items():
        if psutil.pid_exists(pid):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


def test_many_strangers_end_no_rank(few_descriptors: Standing) -> None:
    """gloo ends a process that has no descriptor left for one more."""
    with contextlib.ExitStack() as stack:
        for rank in ranks(few_descriptors):
            for address in listening(rank)[:1] * BURST:
                stack.enter_context(called(address))
        assert len(few_descriptors.train(CASE.job, CASE.plan).losses) == CASE.job.train.steps
