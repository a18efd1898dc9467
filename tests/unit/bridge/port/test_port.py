"""The rank's side against an endpoint that the test plays."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from bridge.errors import BridgeTimeout, EpochClosed, PeerLost, WireError
from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from bridge.system.awake import AwakeClock
from bridge.words.channel import ChannelSpec
from bridge.words.error import ErrorReport
from bridge.words.port import Broken, Close, Open, Received, Send, Sent
from tests.patience import WAIT_S

A, B = RankId("a", 0), RankId("b", 0)
SPEC = ChannelSpec(0, "activation", "x", A, B, 16, 2)


@pytest.fixture
def ends() -> tuple[Port, Pipe]:
    ours, theirs = Pipe.pair()
    return Port(ours, A), theirs


def test_opening_hands_the_slots_over_and_sending_names_one(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    channel = port.open(SPEC)
    channel.send_message(1, 7)
    word, fds = endpoint.recv_word(WAIT_S)
    assert (word, len(fds)) == (Open(SPEC), 1)
    assert endpoint.recv_word(WAIT_S)[0] == Send(SPEC.id, slot=1, nbytes=7, filled=7)


def test_a_channel_that_is_closed_is_told_and_gives_its_memory_back(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    channel, other = port.open(SPEC), port.open(replace(SPEC, name="y"))
    port.close_channel(channel)
    told = [endpoint.recv_word(WAIT_S)[0] for _ in range(3)]
    assert told == [Open(SPEC), Open(other.spec), Close(SPEC.id)]
    with pytest.raises(ValueError, match="released"):
        channel.slots.view(0)
    other.send_message(0, 1)


def test_tickets_complete_in_order_and_free_their_slots(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    channel = port.open(SPEC)
    first, second = channel.send_message(0, 1), channel.send_message(1, 2)
    with pytest.raises(ValueError, match="busy"):
        channel.send_message(0, 1)
    endpoint.send_word(Sent(SPEC.id))
    second_done = second.done()
    assert (first.done(), second_done) == (True, False)
    channel.send_message(0, 1)
    endpoint.send_word(Sent(SPEC.id))
    second.wait(WAIT_S)


def test_a_receive_tells_its_length_and_time(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    spec = replace(SPEC, source=B, target=A)
    ticket = port.open(spec).post_recv(0)
    endpoint.send_word(Received(spec.id, nbytes=5, transfer_s=0.25))
    ticket.wait(WAIT_S)
    assert (ticket.nbytes, ticket.transfer_s) == (5, 0.25)


def test_each_rank_can_only_do_its_part(ends: tuple[Port, Pipe]) -> None:
    port, _ = ends
    channel = port.open(SPEC)
    with pytest.raises(ValueError, match="cannot post"):
        channel.post_recv(0)
    for slot, nbytes in ((2, 1), (0, 17), (0, -1)):
        with pytest.raises(ValueError, match="slot"):
            channel.send_message(slot, nbytes)
    with pytest.raises(ValueError, match="open already"):
        port.open(SPEC)
    with pytest.raises(ValueError, match="not a channel of"):
        port.open(replace(SPEC, source=RankId("c", 0)))


def test_a_broken_channel_raises_now_and_later_but_not_for_what_had_arrived(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    channel = port.open(SPEC)
    first, second = channel.send_message(0, 1), channel.send_message(1, 1)
    endpoint.send_word(Sent(SPEC.id))
    endpoint.send_word(Broken(SPEC.id, ErrorReport.of(WireError("frame", 3, "bad", "mend it"))))
    with pytest.raises(WireError, match="bad") as caught:
        second.wait(WAIT_S)
    assert (caught.value.key, caught.value.value, caught.value.rule) == ("frame", 3, "bad")
    first.wait(WAIT_S)
    assert channel.send_message(0, 1).done()
    with pytest.raises(WireError):
        channel.send_message(0, 1).wait(WAIT_S)


def test_the_end_of_the_endpoint_is_an_error_everywhere(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    ticket = port.open(SPEC).send_message(0, 1)
    endpoint.close()
    with pytest.raises(PeerLost, match="endpoint of this host"):
        ticket.wait(WAIT_S)
    with pytest.raises(PeerLost):
        port.open(replace(SPEC, name="y")).send_message(0, 1).wait(WAIT_S)


def test_a_closed_epoch_ends_its_tickets_alone_and_late_reports_are_ignored(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    old, new = port.open(SPEC).send_message(0, 1), port.open(replace(SPEC, epoch=1)).send_message(0, 1)
    port.close_epoch(0)
    endpoint.send_word(Sent(SPEC.id))
    endpoint.send_word(Sent(new.channel.spec.id))
    with pytest.raises(EpochClosed):
        old.wait(WAIT_S)
    new.wait(WAIT_S)


def test_waiting_ends_at_the_deadline_and_not_before(ends: tuple[Port, Pipe]) -> None:
    port, _ = ends
    ticket = port.open(SPEC).send_message(0, 1)
    start = time.monotonic()
    with pytest.raises(BridgeTimeout, match="did not take a message of 1 bytes"):
        ticket.wait(0.1)
    assert time.monotonic() - start >= 0.1


def test_several_threads_may_wait(ends: tuple[Port, Pipe]) -> None:
    port, endpoint = ends
    tickets = [port.open(replace(SPEC, name=str(n))).send_message(0, 1) for n in range(4)]
    threads = [threading.Thread(target=ticket.wait, args=(WAIT_S,)) for ticket in tickets]
    for thread in threads:
        thread.start()
    for ticket in reversed(tickets):
        time.sleep(0.01)
        endpoint.send_word(Sent(ticket.channel.spec.id))
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads)
    assert all(ticket.done() for ticket in tickets)


def test_a_wait_goes_on_after_its_rank_was_stopped(ends: tuple[Port, Pipe], monkeypatch: pytest.MonkeyPatch) -> None:
    port, endpoint = ends
    ticket = port.open(SPEC).send_message(0, 1)
    times = iter([0.0, 0.0])
    monkeypatch.setattr("bridge.port.port.AwakeClock", lambda: AwakeClock(source=lambda: next(times, 1000.0)))
    monkeypatch.setattr("bridge.port.port.LONGEST_S", 0.05)
    late = threading.Timer(0.2, lambda: endpoint.send_word(Sent(SPEC.id)))
    late.start()
    ticket.wait(10.0)
    late.join()
