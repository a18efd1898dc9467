"""What every transport must do, seen from the ranks at both ends. One suite over the registry."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from bridge.errors import BridgeTimeout, EpochClosed, PeerLost, TransportError
from bridge.port.port import Ticket
from bridge.rank import RankId
from bridge.transports.transport import Connection, load_transport, schemes
from bridge.trust.seal import Checked, Encrypted, Seal
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import Failed, LinkProbed, LostPeer, PaceSpec, ProbeLink, Stop
from bridge.words.frame import CHUNK_BYTES, FrameKind, Header
from tests.contract.bridge_hosts import Host, await_connection, channel, cross, introduce, link, until
from tests.patience import WAIT_S

BETWEEN_PROCESSES = [scheme for scheme in schemes() if scheme != "inproc"]
SIZES = (0, 1, 63, 64, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 3)
Start = Callable[..., Host]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts hosts, and ends them with the test, before what it has patched is put back."""
    hosts: list[Host] = []

    def begin(*args: object, **options: object) -> Host:
        hosts.append(Host(*args, **options))  # type: ignore[arg-type]
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


@pytest.fixture(params=schemes())
def pair(request: pytest.FixtureRequest, start: Start) -> tuple[Host, Host]:
    """Two hosts, linked by one of the transports."""
    a, b = start("a@0", [request.param]), start("b@0", [request.param])
    link(a, b, request.param)
    return a, b


def test_messages_of_any_size_arrive_as_they_were(pair: tuple[Host, Host]) -> None:
    a, b = (host.port() for host in pair)
    for source, target in ((a, b), (b, a)):
        sender, receiver = channel(source, target, slot_bytes=max(SIZES))
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            assert cross(sender, receiver, data, slot=size % 2) == data


@pytest.mark.slow
def test_many_channels_at_once_keep_their_order_and_lose_or_double_nothing(pair: tuple[Host, Host]) -> None:
    ports = pair[0].port(), pair[1].port()
    flows = [channel(*(ports if n % 2 else ports[::-1]), name=str(n), slot_bytes=4096, slots=4) for n in range(8)]
    posted = [[receiver.post_recv(slot) for slot in range(4)] for _, receiver in flows]
    under_way: list[list[Ticket | None]] = [[None] * 4 for _ in flows]
    for turn in range(40):
        slot = turn % 4
        for n, (sender, receiver) in enumerate(flows):
            if ticket := under_way[n][slot]:
                ticket.wait(WAIT_S)
                posted[n][slot].wait(WAIT_S)
                size = posted[n][slot].nbytes
                assert bytes(receiver.slots.view(slot)[:size]) == bytes([n, turn - 4]) * ((turn - 4) * n + 1)
                posted[n][slot] = receiver.post_recv(slot)
            message = bytes([n, turn]) * (turn * n + 1)
            sender.slots.view(slot)[: len(message)] = message
            under_way[n][slot] = sender.send_message(slot, len(message))
    for tickets in under_way:
        for ticket in tickets:
            assert ticket
            ticket.wait(WAIT_S)


def test_ranks_of_one_host_meet_through_their_endpoint(start: Start) -> None:
    host = start("a@0", [])
    sender, receiver = channel(host.port(0), host.port(1), slot_bytes=3 * CHUNK_BYTES)
    data = os.urandom(3 * CHUNK_BYTES - 5)
    assert cross(sender, receiver, data) == data


def test_nothing_leaves_before_a_slot_is_posted_for_it(pair: tuple[Host, Host]) -> None:
    a, b = (host.port() for host in pair)
    sender, receiver = channel(a, b, slot_bytes=4 * CHUNK_BYTES, slots=3)
    tickets = [sender.send_message(slot, 4 * CHUNK_BYTES) for slot in range(3)]
    time.sleep(0.2)
    assert pair[0].stats("b@0")["bytes_sent"] < CHUNK_BYTES
    receiver.post_recv(0).wait(WAIT_S)
    tickets[0].wait(WAIT_S)
    assert not tickets[1].done()
    assert pair[0].stats("b@0")["bytes_sent"] < 5 * CHUNK_BYTES
    receiver.post_recv(1)
    receiver.post_recv(2)
    tickets[2].wait(WAIT_S)
    assert tickets[1].done()


def damage(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """Spoils the heads of so many DATA frames."""
    encode, left = Header.encode, [times]

    def spoilt(header: Header) -> bytes:
        data = encode(header)
        if header.kind is FrameKind.DATA and left[0] > 0:
            left[0] -= 1
            return data[:20] + bytes([data[20] ^ 1]) + data[21:]
        return data

    monkeypatch.setattr(Header, "encode", spoilt)


def test_what_was_damaged_on_its_way_is_sent_again(pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (host.port() for host in pair)
    ends = channel(a, b)
    damage(monkeypatch, 2)
    assert cross(*ends, b"whole") == b"whole"
    assert pair[0].stats("b@0")["frames_repeated"] >= 2
    assert pair[0].stats("b@0")["reconnects"] == 2


def held() -> tuple[int, int, int]:
    """What this process holds: connections, threads, descriptors."""
    gc.collect()
    connections = sum(issubclass(type(one), Connection) for one in gc.get_objects())
    return connections, threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
def test_connections_that_were_replaced_leave_nothing(pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    ends = channel(*(host.port() for host in pair))
    damage(monkeypatch, 1)
    assert cross(*ends, b"what is made once is there") == b"what is made once is there"
    before = held()
    damage(monkeypatch, 6)
    assert cross(*ends, b"whole") == b"whole"
    assert pair[0].stats("b@0")["reconnects"] == 7
    until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", schemes())
def test_damage_without_end_is_an_error_at_both_ends(
    scheme: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (start(name, [scheme], patience_s=1.0) for name in ("a@0", "b@0"))
    link(a, b, scheme)
    sender, receiver = channel(a.port(), b.port())
    damage(monkeypatch, float("inf"))
    arrival, departure = receiver.post_recv(0), sender.send_message(0, 5)
    with pytest.raises(PeerLost, match="damaged"):
        arrival.wait(WAIT_S)
    with pytest.raises(PeerLost):
        departure.wait(WAIT_S)


@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
@pytest.mark.parametrize("kind", [Checked, Encrypted])
def test_a_damaged_payload_is_sent_again(
    scheme: str, kind: type[Seal], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (start(name, [scheme]) for name in ("a@0", "b@0"))
    link(a, b, scheme, sealed=kind is Encrypted)
    ends = channel(a.port(), b.port())
    apply, left = kind.apply, [1]

    def spoilt(self: Seal, header: Header, payload: memoryview) -> tuple[bytes, memoryview]:
        head, body = apply(self, header, payload)
        if header.kind is FrameKind.DATA and left:
            left.pop()
            body = memoryview(bytes([body[0] ^ 1]) + bytes(body[1:]))
        return head, body

    monkeypatch.setattr(kind, "apply", spoilt)
    assert cross(*ends, b"whole") == b"whole"
    assert a.stats("b@0")["reconnects"] == 1


def test_frames_of_a_closed_epoch_are_dropped_and_counted_and_the_next_epoch_works(pair: tuple[Host, Host]) -> None:
    a, b = (host.port() for host in pair)
    sender, receiver = channel(a, b)
    arrival = receiver.post_recv(0)
    later = channel(a, b, epoch=1)
    assert cross(*later, b"credit has crossed too") == b"credit has crossed too"
    b.close_epoch(0)
    with pytest.raises(EpochClosed):
        arrival.wait(WAIT_S)
    assert cross(*later, b"so b has closed it") == b"so b has closed it"
    departure = sender.send_message(0, 7)
    until(lambda: pair[1].stats("a@0")["frames_dropped_epoch"] == 1)
    a.close_epoch(0)
    with pytest.raises(EpochClosed):
        departure.wait(WAIT_S)
    assert cross(*later, b"new", slot=1) == b"new"


def test_an_end_may_be_opened_long_after_the_other(pair: tuple[Host, Host]) -> None:
    a, b = (host.port() for host in pair)
    spec = channel(a, b, "first")[0].spec
    late = type(spec)(0, "state", "late", a.rank, b.rank, 64, 1)
    arrival = b.open(late).post_recv(0)
    time.sleep(0.05)
    a.open(late).send_message(0, 3).wait(WAIT_S)
    arrival.wait(WAIT_S)
    assert arrival.nbytes == 3


def test_a_deadline_names_the_channel_and_leaves_the_ticket_valid(pair: tuple[Host, Host]) -> None:
    a, b = (host.port() for host in pair)
    sender, receiver = channel(a, b, "layer 3")
    arrival = receiver.post_recv(0)
    with pytest.raises(BridgeTimeout, match=r"layer 3 a:0 -> b:0.*a:0 sent no message within 0\.05 s"):
        arrival.wait(0.05)
    sender.send_message(0, 1)
    arrival.wait(WAIT_S)


def test_a_rank_that_ends_is_lost_to_those_who_wait_for_it(pair: tuple[Host, Host]) -> None:
    a, b = (host.port() for host in pair)
    sender, receiver = channel(a, b)
    arrival = receiver.post_recv(0)
    unaffected = channel(pair[0].port(1), b, "other rank")
    a.close()
    with pytest.raises(PeerLost, match="rank a:0 has ended"):
        arrival.wait(WAIT_S)
    assert cross(*unaffected, b"alive") == b"alive"
    with pytest.raises(EpochClosed):
        sender.send_message(0, 1).wait(WAIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", BETWEEN_PROCESSES)
@pytest.mark.parametrize("dials", [True, False], ids=["dialled", "accepted"])
def test_a_killed_peer_is_lost_within_the_patience(scheme: str, dials: bool, start: Start) -> None:
    here, there = ("a@0", "b@0") if dials else ("b@0", "a@0")
    a, b = start(here, [scheme], patience_s=1.0), start(there, [scheme], process=True)
    link(a, b, scheme)
    ours, theirs = a.port(), b.port()
    receives = channel(theirs, ours, "in")[1].post_recv(0)
    sender, _ = channel(ours, theirs, "out")
    sends = sender.send_message(0, 1)
    await_connection(a, b)
    b.kill()
    for ticket in (receives, sends):
        with pytest.raises(PeerLost, match=there):
            ticket.wait(WAIT_S)
    assert a.expect(LostPeer).peer == there
    with pytest.raises(PeerLost):
        sender.send_message(1, 1).wait(WAIT_S)
    with pytest.raises(PeerLost, match="endpoint of this host"):
        theirs.open(type(sender.spec)(0, "sync", "y", theirs.rank, ours.rank, 1, 1)).send_message(0, 1).wait(WAIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", BETWEEN_PROCESSES)
def test_a_peer_that_stands_still_is_lost_after_the_patience(scheme: str, start: Start) -> None:
    a, b = start("a@0", [scheme], patience_s=1.0), start("b@0", [scheme], process=True)
    link(a, b, scheme)
    arrival = channel(b.port(), a.port())[1].post_recv(0)
    await_connection(a, b)
    b.kill(signal.SIGSTOP)
    since = time.monotonic()
    with pytest.raises(PeerLost, match="silent"):
        arrival.wait(WAIT_S)
    assert time.monotonic() - since > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("scheme", BETWEEN_PROCESSES)
def test_an_idle_link_outlives_the_patience(scheme: str, start: Start) -> None:
    a, b = start("a@0", [scheme], patience_s=1.0), start("b@0", [scheme], patience_s=1.0)
    link(a, b, scheme)
    ends = channel(a.port(), b.port())
    time.sleep(3.0)
    assert cross(*ends, b"still here") == b"still here"


@pytest.mark.parametrize("scheme", schemes())
def test_a_peer_that_stops_in_good_order_is_no_loss_to_report(scheme: str, start: Start) -> None:
    a, b = start("a@0", [scheme]), start("b@0", [scheme])
    link(a, b, scheme)
    sender, receiver = channel(b.port(), a.port())
    assert cross(sender, receiver, b"open at both ends") == b"open at both ends"
    arrival = receiver.post_recv(0)
    b.control.send_word(Stop())
    with pytest.raises(PeerLost, match="stopped"):
        arrival.wait(WAIT_S)
    assert a.stats("b@0")["frames_dropped_epoch"] == 0  # the next word is this, not LostPeer


@pytest.mark.slow
@pytest.mark.parametrize("scheme", BETWEEN_PROCESSES)
@pytest.mark.parametrize("dials", [True, False], ids=["dials", "knocks"])
def test_a_dial_that_nobody_answers_is_reported(scheme: str, dials: bool, start: Start) -> None:
    here, there = ("a@0", "b@0") if dials else ("b@0", "a@0")
    a, b = start(here, [scheme], patience_s=0.5), start(there, [scheme])
    introduce(a, b, scheme)
    b.control.send_word(Stop())
    b.thread.join(WAIT_S)
    source = a.port()
    arrival = source.open(ChannelSpec(0, "sync", "x", RankId(there[0], 0), source.rank, 1, 1)).post_recv(0)
    error = a.expect(Failed).error
    assert (error.type, error.value) == ("TransportError", there)
    with pytest.raises(PeerLost, match=r"not connected within 0\.5 s"):
        arrival.wait(WAIT_S)


@pytest.mark.parametrize("scheme", schemes())
def test_a_peer_that_starts_anew_takes_the_place_of_the_old_one(scheme: str, start: Start) -> None:
    a, b, again = start("a@0", [scheme]), start("b@0", [scheme]), start("a@0", [scheme])
    link(a, b, scheme)
    target = b.port()
    sender, receiver = channel(a.port(), target)
    assert cross(sender, receiver, b"old") == b"old"
    arrival = receiver.post_recv(0)
    link(again, b, scheme)
    source = again.port()
    later = replace(sender.spec, epoch=1)
    sender = source.open(later)
    assert b.expect(LostPeer).cause == "it has started anew"
    with pytest.raises(PeerLost, match="anew"):
        arrival.wait(WAIT_S)
    assert cross(sender, target.open(later), b"new") == b"new"


@pytest.mark.parametrize("scheme", schemes())
def test_a_paced_link_takes_its_time_one_message_after_the_other(scheme: str, start: Start) -> None:
    a, b = start("a@0", [scheme]), start("b@0", [scheme])
    link(a, b, scheme, PaceSpec(20e6, 0.03))
    sender, receiver = channel(a.port(), b.port(), slot_bytes=1_000_000)
    arrivals = [receiver.post_recv(slot) for slot in range(2)]
    time.sleep(0.1)
    began = time.monotonic()
    for slot in range(2):
        sender.send_message(slot, 1_000_000)
    for arrival, at_least_s in zip(arrivals, (0.08, 0.13), strict=True):
        arrival.wait(WAIT_S)
        assert time.monotonic() - began >= at_least_s
        assert arrival.transfer_s >= 0.08


def test_one_endpoint_speaks_several_transports(start: Start) -> None:
    a, b, c = start("a@0", ["zmq", "grpc"]), start("b@0", ["zmq"]), start("c@0", ["grpc"])
    link(a, b, "zmq")
    link(a, c, "grpc")
    source = a.port()
    for host in (b, c):
        assert cross(*channel(source, host.port()), b"hello") == b"hello"


@pytest.mark.slow
def test_an_endpoint_process_is_light_and_ends_with_its_control_pipe(start: Start) -> None:
    before = set(os.listdir("/dev/shm"))
    host = start("a@0", ["zmq"], process=True)
    channel(host.port(0), host.port(1))
    assert set(os.listdir("/dev/shm")) <= before
    host.control.close()
    assert host.process
    host.process.wait(WAIT_S)


@pytest.mark.slow
def test_the_endpoint_imports_neither_torch_nor_ray_and_grpc_only_if_used() -> None:
    heavy = {"torch", "ray", "grpc", "zmq"}
    code = f"import sys, bridge.endpoint.__main__, bridge.port.port; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_an_unknown_scheme_is_an_error_with_a_hint() -> None:
    with pytest.raises(TransportError, match="did you mean grpc"):
        load_transport("gprc")


def test_a_link_is_measured_without_a_trace(pair: tuple[Host, Host]) -> None:
    ends = channel(pair[0].port(), pair[1].port())
    pair[0].control.send_word(ProbeLink("b@0", 20_000_001))
    found = pair[0].expect(LinkProbed)
    assert found.peer == "b@0"
    assert 0 < found.bytes_per_s < 1e12
    assert found.rtt_s
    assert found.rtt_s > 0
    assert found.cpu_s_per_gb > 0
    assert pair[0].stats("b@0")["bytes_sent"] > 20_000_001
    assert cross(*ends, b"as before") == b"as before"
