"""Connections are made when ranks begin to talk: one bundle for each two hosts that do, and none else."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import psutil
import pytest

from bridge.errors import PeerLost
from bridge.port.port import Port
from bridge.rank import RankId
from bridge.transports.transport import schemes
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import (
    AskStats,
    Failed,
    Introduce,
    Introduced,
    LinkProbed,
    LostPeer,
    PaceSpec,
    PeerSpec,
    ProbeLink,
    Stats,
    Stop,
)
from bridge.words.frame import CHUNK_BYTES
from tests.contract.bridge_hosts import Host, await_connection, channel, cross, introduce, link, until
from tests.patience import WAIT_S

Start = Callable[..., Host]
DIALS, KNOCKS = pytest.param(0, id="dials"), pytest.param(1, id="knocks", marks=pytest.mark.slow)
RANKS = 8  # of a host
PIPELINES, STAGES = 4, 16  # each stage a host


@pytest.fixture
def start() -> Iterator[Start]:
    hosts: list[Host] = []

    def begin(*args: Any, **options: Any) -> Host:
        hosts.append(Host(*args, **options))
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


def connections(host: Host) -> dict[str, int]:
    """Of each peer, those that there are."""
    host.control.send_word(AskStats())
    peers = host.expect(Stats).peers
    return {peer: stats["connections"] for peer, stats in peers.items() if peer != host.name and stats["connections"]}


@pytest.mark.parametrize("scheme", schemes())
@pytest.mark.parametrize("first", [DIALS, KNOCKS])
def test_one_rank_alone_has_the_link_connected_and_what_it_says_is_kept(first: int, scheme: str, start: Start) -> None:
    hosts = [start(name, [scheme], patience_s=5.0) for name in ("a@0", "b@0")]
    link(*hosts, scheme)
    assert [connections(host) for host in hosts] == [{}, {}]
    early, late = hosts[first].port(), hosts[1 - first].port()
    sends = ChannelSpec(0, "sync", "there", early.rank, late.rank, 8, 1)
    receives = ChannelSpec(0, "sync", "back", late.rank, early.rank, 8, 1)
    departure, arrival = early.open(sends).send_message(0, 8), early.open(receives).post_recv(0)
    await_connection(*hosts)
    late.open(sends).post_recv(0).wait(WAIT_S)
    late.open(receives).send_message(0, 3).wait(WAIT_S)
    departure.wait(WAIT_S)
    arrival.wait(WAIT_S)
    assert arrival.nbytes == 3
    assert [connections(host) for host in hosts] == [{"b@0": 1}, {"a@0": 1}]


@pytest.mark.parametrize("source", [DIALS, KNOCKS])
def test_a_probe_has_the_link_connected_and_finds_what_it_is_paced_to(source: int, start: Start) -> None:
    hosts = [start(name, ["zmq"], patience_s=5.0) for name in ("a@0", "b@0")]
    link(*hosts, "zmq", PaceSpec(20e6, 0.03))
    hosts[source].control.send_word(ProbeLink(hosts[1 - source].name, 1_000_000))
    found = hosts[source].expect(LinkProbed)
    assert 0 < found.bytes_per_s < 21e6
    assert found.rtt_s is not None
    assert found.rtt_s >= 0.06


@pytest.mark.slow
def test_what_an_emulated_line_delays_beyond_the_patience_is_no_silence(start: Start) -> None:
    """Neither before the first word is there, nor on an idle line, nor in either direction: nobody connects anew."""
    hosts = a, b = start("a@0", ["zmq"], patience_s=1.0), start("b@0", ["zmq"], patience_s=1.0)
    link(a, b, "zmq", PaceSpec(1e9, 3.0))
    ports, began_s = (a.port(), b.port()), time.monotonic()
    ends = channel(*ports, "there"), channel(*ports[::-1], "back")
    tickets = [receiver.post_recv(0) for _, receiver in ends] + [sender.send_message(0, 8) for sender, _ in ends]
    for ticket in tickets:
        ticket.wait(WAIT_S)
    assert time.monotonic() - began_s > 9.0, "leave to send, message and thanks"
    time.sleep(2.0)
    for host, peer in zip(hosts, ("b@0", "a@0"), strict=True):
        assert (connections(host), host.stats(peer)["reconnects"]) == ({peer: 1}, 0)


@pytest.mark.slow
def test_who_is_silent_on_an_emulated_line_is_lost_after_its_delay(start: Start) -> None:
    a, b = start("a@0", ["zmq"], patience_s=1.0), start("b@0", ["zmq"], process=True)
    link(a, b, "zmq", PaceSpec(1e9, 2.0))
    channel(a.port(), b.port())
    await_connection(a, b)
    b.kill(signal.SIGSTOP)
    began_s = time.monotonic()
    assert a.expect(LostPeer).cause.startswith("silent for 1 s")
    assert time.monotonic() - began_s > 1.5
    b.kill(signal.SIGCONT)


def test_a_peer_that_is_replaced_before_anybody_talks_to_it_is_found(start: Start) -> None:
    a, b, again = start("a@0", ["zmq"]), start("b@0", ["zmq"]), start("b@0", ["zmq"])
    introduce(a, b, "zmq")
    b.control.send_word(Stop())
    b.thread.join(WAIT_S)
    link(a, again, "zmq")
    assert cross(*channel(a.port(), again.port()), b"hello") == b"hello"


def test_all_streams_of_a_link_are_opened(start: Start) -> None:
    a, b = start("a@0", ["zmq"]), start("b@0", ["zmq"])
    link(a, b, "zmq", streams=4)
    assert cross(*channel(a.port(), b.port()), b"hello") == b"hello"
    until(lambda: connections(a) == {"b@0": 4} and connections(b) == {"a@0": 4})


@pytest.mark.parametrize("told_first", [0, 1], ids=["dialler", "dialled"])
def test_a_link_becomes_wider_while_messages_cross(told_first: int, start: Start) -> None:
    a, b = hosts = start("a@0", ["zmq"]), start("b@0", ["zmq"])
    link(a, b, "zmq")
    ends = channel(a.port(), b.port())
    assert cross(*ends, b"one stream") == b"one stream"
    first, other = hosts[told_first], hosts[1 - told_first]
    introduce(first, other, "zmq", streams=3)
    assert cross(*ends, b"told one side") == b"told one side"
    introduce(other, first, "zmq", streams=3)
    until(lambda: connections(a) == {"b@0": 3} and connections(b) == {"a@0": 3})
    assert cross(*ends, b"three streams") == b"three streams"


@pytest.mark.slow
@pytest.mark.parametrize("told", [(1, 3), (3, 1)], ids=["dialled", "dialler"])
def test_who_dials_decides_how_many_streams_there_are(told: tuple[int, int], start: Start) -> None:
    """The other side misses none, however long it waits."""
    a, b = (start(name, ["zmq"], patience_s=3.0) for name in ("a@0", "b@0"))
    introduce(a, b, "zmq", streams=told[0])
    introduce(b, a, "zmq", streams=told[1])
    ends = channel(a.port(), b.port())
    assert cross(*ends, b"hello") == b"hello"
    time.sleep(4.0)
    assert connections(b) == {"a@0": told[0]}
    assert cross(*ends, b"still there") == b"still there"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
def test_a_link_becomes_narrower_and_loses_nothing(scheme: str, start: Start) -> None:
    a, b = (start(name, [scheme], patience_s=3.0) for name in ("a@0", "b@0"))
    link(a, b, scheme, streams=4)
    ends = channel(a.port(), b.port(), slot_bytes=CHUNK_BYTES * 8)
    content = bytes(range(256)) * (CHUNK_BYTES * 8 // 256)
    assert cross(*ends, content) == content
    link(a, b, scheme, streams=2)
    assert cross(*ends, content[::-1]) == content[::-1]
    time.sleep(4.0)
    assert connections(a) == {"b@0": 4}, "those that were connected stay so"
    assert cross(*ends, content) == content


@pytest.mark.slow
def test_a_dialler_that_starts_anew_may_have_fewer_streams(start: Start) -> None:
    a, b = start("a@0", ["zmq"], process=True), start("b@0", ["zmq"], patience_s=3.0)
    link(a, b, "zmq", streams=4)
    assert cross(*channel(a.port(), b.port()), b"four") == b"four"
    until(lambda: connections(b) == {"a@0": 4})
    a.kill()
    again = start("a@0", ["zmq"])
    link(again, b, "zmq", streams=1)
    ports = again.port(), b.port(1)
    channel(*ports, epoch=1)
    assert b.expect(LostPeer).cause == "it has started anew"
    ends = channel(*ports, epoch=2)
    assert cross(*ends, b"one") == b"one"
    time.sleep(4.0)
    assert cross(*ends, b"still there") == b"still there"
    assert connections(b) == {"a@0": 1}


@pytest.mark.parametrize("streams", [0, 17])
def test_a_link_has_no_other_number_of_streams(streams: int, start: Start) -> None:
    a, b = start("a@0", ["zmq"]), start("b@0", ["zmq"])
    a.control.send_word(Introduce({"b@0": PeerSpec(b.uris["zmq"], b.key, streams)}))
    assert a.expect(Failed).error.value == streams
    link(a, b, "zmq")
    assert cross(*channel(a.port(), b.port()), b"hello") == b"hello"


def test_a_link_that_nobody_has_needed_has_as_many_streams_as_it_was_told_last(start: Start) -> None:
    a, b = start("a@0", ["zmq"]), start("b@0", ["zmq"])
    for streams in (8, 2):
        link(a, b, "zmq", streams=streams)
    assert cross(*channel(a.port(), b.port()), b"hello") == b"hello"
    until(lambda: connections(a) == {"b@0": 2} and connections(b) == {"a@0": 2})


def test_a_rank_that_nobody_serves_is_lost_at_once(start: Start) -> None:
    port = start("a@0", ["zmq"]).port()
    sends = port.open(ChannelSpec(0, "sync", "x", port.rank, RankId("z", 0), 8, 1)).send_message(0, 8)
    with pytest.raises(PeerLost, match="no connection to z:0"):
        sends.wait(WAIT_S)


def pairs_that_talk() -> list[tuple[int, int]]:
    """Neighbours in a pipeline, and stages of the same layers in two pipelines."""
    along = {(p * STAGES + s, p * STAGES + s + 1) for p in range(PIPELINES) for s in range(STAGES - 1)}
    across = {(p * STAGES + s, (p + 1) % PIPELINES * STAGES + s) for p in range(PIPELINES) for s in range(STAGES)}
    return sorted({(min(pair), max(pair)) for pair in along | across})


@pytest.mark.slow
def test_connections_grow_with_the_pairs_of_hosts_that_talk(start: Start) -> None:
    hosts = [start(f"h{number:02d}@0", ["zmq"]) for number in range(PIPELINES * STAGES)]
    facts = {host.name: PeerSpec(host.uris["zmq"], host.key, sealed=True) for host in hosts}
    routes = {f"{name.partition('@')[0]}:{rank}": name for name in facts for rank in range(RANKS)}
    for host in hosts:
        peers = {name: of for name, of in facts.items() if name != host.name}
        host.control.send_word(Introduce(peers, routes))
        host.expect(Introduced)
    ports = [[host.port(rank) for rank in range(RANKS)] for host in hosts]
    pairs, before = pairs_that_talk(), tcp_sockets()
    for end, other in pairs:
        serve(ports[end], ports[other])
    for number, host in enumerate(hosts):
        talks = {hosts[pair[pair[0] == number]].name for pair in pairs if number in pair}
        assert connections(host) == dict.fromkeys(talks, 1)
    assert tcp_sockets() - before == 2 * len(pairs)  # both ends are in this process
    assert len(pairs) < len(list(combinations(hosts, 2))) / 16


def serve(ours: list[Port], theirs: list[Port]) -> None:
    """Every rank of one host sends a message to one of the other, and gets one."""
    flows = [channel(*ends, slot_bytes=64) for pair in zip(ours, theirs, strict=True) for ends in (pair, pair[::-1])]
    arrivals = [receiver.post_recv(0) for _, receiver in flows]
    for number, (sender, _) in enumerate(flows):
        sender.slots.view(0)[:8] = number.to_bytes(8, "big")
        sender.send_message(0, 8)
    for number, (arrival, (_, receiver)) in enumerate(zip(arrivals, flows, strict=True)):
        arrival.wait(WAIT_S)
        assert bytes(receiver.slots.view(0)[:8]) == number.to_bytes(8, "big")


def tcp_sockets() -> int:
    """Of this process, connected."""
    return sum(one.status == psutil.CONN_ESTABLISHED for one in psutil.Process().net_connections("tcp"))
