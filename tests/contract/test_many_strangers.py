"""Thousands of strangers of each kind beside two endpoints that talk, and fuzz by the hundred thousand.

Prints, for each kind, how much of the endpoint's processor the strangers take, and how many messages an endpoint with a
core of its own would still carry: strangers compute too, on the same cores, so a rate by the clock would show theirs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.contract import fuzz, fuzz_wire, strangers
from tests.contract.bridge_hosts import Host, channel, cross, link
from tests.patience import WAIT_S

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
COUNT, SECONDS = 2000, 8.0
KINDS = [(scheme, kind) for scheme, kinds in strangers.BY_SCHEME.items() for kind in kinds]


class Stretch(NamedTuple):
    """What the endpoint did for so many messages, in so many seconds."""

    messages: int
    seconds: float
    cpu_s: float


class Talk:
    """Messages from one endpoint to another, each of which is compared."""

    def __init__(self, scheme: str) -> None:
        self.hosts = [Host(name, [scheme], process=True) for name in ("a@0", "b@0")]
        link(*self.hosts, scheme)
        self._ends = channel(*(host.port() for host in self.hosts), slot_bytes=1 << 16)
        self.uri = self.hosts[1].uris[scheme]
        assert self.hosts[1].process
        self.endpoint = psutil.Process(self.hosts[1].process.pid)
        self._number = 0

    def go_on(self, seconds: float) -> Stretch:
        began, cpu_s, first, most = time.monotonic(), self._cpu_s(), self._number, 0
        while time.monotonic() - began < seconds:
            self._number += 1
            message = self._number.to_bytes(8, "big") * (1 << 13)
            assert cross(*self._ends, message) == message
            most = max(most, self.endpoint.memory_info().rss) if self._number % 20 == 0 else most
        self.most_bytes = most
        return Stretch(self._number - first, time.monotonic() - began, self._cpu_s() - cpu_s)

    def close(self) -> None:
        for host in self.hosts:
            host.close()

    def _cpu_s(self) -> float:
        times = self.endpoint.cpu_times()
        return float(times.user + times.system)


@pytest.fixture
def talk(request: pytest.FixtureRequest) -> Iterator[Talk]:
    one = Talk(request.param)
    yield one
    one.close()


@pytest.mark.parametrize(("talk", "kind"), KINDS, ids=[" ".join(of) for of in KINDS], indirect=["talk"])
def test_thousands_of_strangers_neither_end_nor_fill_an_endpoint(talk: Talk, kind: str) -> None:
    talk.go_on(1.0)
    before_bytes = talk.endpoint.memory_info().rss
    quiet = talk.go_on(SECONDS / 2)
    command = [sys.executable, "-m", "tests.contract.strangers", kind, talk.uri, str(COUNT)]
    crowd = subprocess.Popen(command, cwd=ROOT)
    try:
        beside = talk.go_on(SECONDS)
        assert crowd.poll() is None
    finally:
        crowd.kill()
        crowd.wait(WAIT_S)
    grown_bytes = talk.most_bytes - before_bytes
    each_s = quiet.cpu_s / quiet.messages
    for_strangers = max(0.0, beside.cpu_s - each_s * beside.messages) / beside.seconds
    rate = beside.messages / beside.seconds / (quiet.messages / quiet.seconds)
    scheme = talk.uri.partition(":")[0]
    print(f"\n{scheme} {kind}: {for_strangers:.1%} of a core, {grown_bytes / 1e6:+.0f} MB; {rate:.2f} by the clock")
    assert grown_bytes < strangers.MOST_BYTES[scheme]
    assert talk.go_on(1.0).messages


@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
def test_no_bytes_end_an_endpoint(scheme: str) -> None:
    fuzz_wire.run(scheme, 50_000, seed=2)


def test_no_frames_end_a_network() -> None:
    fuzz.run(300_000, seed=2)
