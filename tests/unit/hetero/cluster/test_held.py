"""Pools that benchmarks hold to a part of a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import psutil

from benchmarks.held import cpu_s, held, pids_of
from hetero.cluster.session import Session
from tests.patience import WAIT_S

PART, LONG_S, LOOKS = 0.4, 0.5, 5


@dataclass(frozen=True)
class Ranks:
    """Processes that compute, by host: what of a session is asked for."""

    by_host: dict[str, list[int]]

    @property
    def fleet(self) -> SimpleNamespace:
        names = list(dict.fromkeys(host.partition("/")[0] for host in self.by_host))
        hosts = [
            SimpleNamespace(id=host, pool=SimpleNamespace(name=host.partition("/")[0]), ranks=range(len(pids)))
            for host, pids in self.by_host.items()
        ]
        return SimpleNamespace(names=names, hosts=hosts)

    def pids(self, host: str) -> dict[str, int]:
        return {str(rank): pid for rank, pid in enumerate(self.by_host[host])}

    @property
    def session(self) -> Session:
        return cast(Session, self)


@contextmanager
def computing(*hosts: str) -> Iterator[Ranks]:
    """One on each host."""
    with ExitStack() as stack:
        started = [stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"])) for _ in hosts]
        for process in started:
            stack.callback(process.kill)
        yield Ranks({host: [process.pid] for host, process in zip(hosts, started, strict=True)})


def _runs_in_part(pid: int) -> bool:
    """Nearer to `PART` than to all of the time, in one of a few looks: who holds it may itself wait for a core."""
    return any(0 < _part_of_time(pid) < (PART + 1) / 2 for _ in range(LOOKS))


def _part_of_time(pid: int) -> float:
    before, began = cpu_s([pid]), time.perf_counter()
    time.sleep(LONG_S)
    return (cpu_s([pid]) - before) / (time.perf_counter() - began)


def _goes_on(pid: int) -> bool:
    return psutil.Process(pid).status() != psutil.STATUS_STOPPED


def test_a_pools_ranks_are_those_of_all_its_hosts() -> None:
    ranks = Ranks({"a/0": [1, 2], "a/1": [3], "b/0": [4]})
    assert pids_of(ranks.session, "a") == [1, 2, 3]
    assert pids_of(ranks.session, "b") == [4]


def test_a_held_pool_runs_so_much_of_the_time_and_goes_on_afterwards() -> None:
    with computing("a/0", "b/0") as ranks:
        (slow,) = pids_of(ranks.session, "a")
        with held(ranks.session, {"a": PART}):
            assert _runs_in_part(slow)
        assert _goes_on(slow)
        before = cpu_s([slow])
        deadline = time.monotonic() + WAIT_S
        while cpu_s([slow]) - before < 0.1:
            assert time.monotonic() < deadline, "it computes again"
            time.sleep(0.01)


def test_it_goes_on_where_the_measurement_fails() -> None:
    with computing("a/0") as ranks:
        with suppress(ZeroDivisionError), held(ranks.session, {"a": 0.01}):
            time.sleep(0.05)
            raise ZeroDivisionError
        assert all(_goes_on(pid) for pid in pids_of(ranks.session, "a"))


def test_each_pool_has_a_core_and_without_parts_nothing_is_touched() -> None:
    cores = sorted(os.sched_getaffinity(0))
    with computing("a/0", "b/0", "c/0") as ranks:
        pids = [pid for pool in ranks.fleet.names for pid in pids_of(ranks.session, pool)]
        with held(ranks.session, {}):
            assert [os.sched_getaffinity(pid) for pid in pids] == [set(cores)] * 3
        with held(ranks.session, {"b": PART}):
            assert [os.sched_getaffinity(pid) for pid in pids] == [{cores[n % len(cores)]} for n in range(3)]


def test_a_rank_that_has_ended_holds_nobody_up() -> None:
    with computing("a/0", "a/1") as ranks:
        first, second = pids_of(ranks.session, "a")
        with held(ranks.session, {"a": PART}):
            psutil.Process(first).kill()
            os.waitpid(first, 0)
            assert _runs_in_part(second)
        assert _goes_on(second)
