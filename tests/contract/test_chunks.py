"""A message leaves and is taken part by part, while its rank goes on: over a network and over shared memory, with a
chip whose copies are made when the test says."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.cpu import CpuBackend
from bridge.codec import CODECS
from bridge.errors import BridgeError, EpochClosed, PeerLost, WireError
from bridge.port.pipe import Pipe
from bridge.port.port import Channel, Port, Ticket
from bridge.rank import RankId
from bridge.words.channel import PART_BYTES, ChannelSpec
from bridge.words.port import Fill, Open, Send
from hetero.transfer import coded
from hetero.transfer.bridge_messages import BridgeReceiver, BridgeSender
from hetero.transfer.codecs import kernel
from hetero.transfer.coded import CodedReader, CodedWriter
from hetero.transfer.copy_queue import CopyQueue
from hetero.transfer.gate import Gate
from hetero.transfer.messages import Destination
from hetero.transfer.slot_io import PlainReader, PlainWriter, cut
from hetero.transfer.waits import Waits
from tests.contract.bridge_hosts import Host, channel, cross, link, until
from tests.contract.later import LaterChip
from tests.patience import WAIT_S

PARTS = 3
SLOT_BYTES = PARTS * PART_BYTES
NUMEL = SLOT_BYTES // 4
CODED, CODED_PARTS = CODECS["bf16"], 2


@pytest.fixture(params=["zmq", "shm"])
def ports(request: pytest.FixtureRequest) -> Iterator[tuple[Port, Port]]:
    a, b = Host("a@0", [request.param]), Host("b@0", [request.param])
    link(a, b, request.param)
    yield a.port(), b.port()
    for host in (a, b):
        host.close()


class Out:
    """The sending end, of a chip that copies later."""

    def __init__(self, ends: tuple[Channel, Channel]) -> None:
        self.channel, self.peer = ends
        self.chip = LaterChip()
        self.queue = CopyQueue(self.chip, "out", self._fail)
        self.sender = BridgeSender(
            self.channel, PlainWriter(self.channel, self.chip, torch.float32), self.queue, Waits(self.chip)
        )

    def _fail(self, failure: Exception) -> None:
        self.channel.port.fail(BridgeError("chip", 0, str(failure)))

    def arrived(self, slot: int = 0) -> torch.Tensor:
        return torch.frombuffer(self.peer.slots.view(slot), dtype=torch.float32)


@pytest.fixture
def out(ports: tuple[Port, Port]) -> Iterator[Out]:
    one = Out(channel(*ports, slot_bytes=SLOT_BYTES))
    yield one
    one.chip.make_all()
    one.queue.close()


def test_what_is_copied_leaves_and_nothing_else(out: Out) -> None:
    x = torch.randn(NUMEL)
    arrival = out.peer.post_recv(0)
    out.sender.send_pieces([x])  # returns, with nothing copied
    assert len(out.chip.outward) == PARTS
    found, part = out.arrived(), NUMEL // PARTS
    for copied in range(1, PARTS):
        out.chip.make()
        until(lambda end=copied * part: torch.equal(found[:end], x[:end]))
        assert not found[copied * part :].any()
        assert not arrival.done()
    out.chip.make()
    arrival.wait(WAIT_S)
    assert arrival.nbytes == SLOT_BYTES
    assert torch.equal(found, x)
    out.sender.drain()


def test_messages_that_follow_each_other_are_filled_in_turn(out: Out) -> None:
    xs = [torch.randn(NUMEL), torch.randn(3)]
    arrivals = [out.peer.post_recv(slot) for slot in range(2)]
    for x in xs:
        out.sender.send_pieces(x.split(200_000))
    out.chip.make(len(out.chip.outward))
    for slot, (x, arrival) in enumerate(zip(xs, arrivals, strict=True)):
        arrival.wait(WAIT_S)
        assert torch.equal(out.arrived(slot)[: len(x)], x)
    assert out.chip.attended == {"copies-out"}


def test_time_on_the_way_begins_with_the_first_bytes_in_the_slot(out: Out) -> None:
    arrival = out.peer.post_recv(0)
    announced = time.monotonic()
    out.sender.send_pieces([torch.randn(NUMEL)])
    time.sleep(0.3)  # the chip still computes what is to be sent
    out.chip.make(PARTS)
    arrival.wait(WAIT_S)
    assert arrival.transfer_s < time.monotonic() - announced - 0.2


def test_a_small_message_of_a_chip_that_copies_at_once_is_one_message_to_the_endpoint() -> None:
    ours, endpoint = Pipe.pair()
    spec = ChannelSpec(0, "activation", "x", RankId("a", 0), RankId("b", 0), SLOT_BYTES, 2)
    opened = Port(ours, spec.source).open(spec)
    chip = CpuBackend()
    sender = BridgeSender(
        opened, PlainWriter(opened, chip, torch.float32), CopyQueue(chip, "out", pytest.fail), Waits(chip)
    )
    sender.send_pieces([torch.ones(10), torch.ones(5)])
    sender.send_pieces([torch.ones(NUMEL - 7), torch.ones(7)])
    said = [word for word, _ in endpoint.drain()]
    assert [type(word) for word in said] == [Open, Send, Send, *[Fill] * (PARTS - 1)]
    assert (said[1].nbytes, said[1].filled) == (60, 60)
    assert [word.filled for word in said[2:]] == [PART_BYTES * n for n in range(1, PARTS + 1)]


def test_a_rank_that_ends_in_the_midst_of_a_message_is_named_to_its_peer(out: Out) -> None:
    arrival = out.peer.post_recv(0)
    out.sender.send_pieces([torch.randn(NUMEL)])
    out.chip.make()
    out.channel.port.close()
    with pytest.raises(PeerLost, match="rank a:0 has ended"):
        arrival.wait(WAIT_S)
    out.chip.make(PARTS - 1)  # nobody minds what is still copied


def test_an_epoch_that_ends_in_the_midst_of_a_message_ends_its_tickets(out: Out) -> None:
    out.peer.post_recv(0)
    out.sender.send_pieces([torch.randn(NUMEL)])
    out.chip.make()
    out.channel.port.close_epoch(0)
    with pytest.raises(EpochClosed):
        out.sender.drain()
    out.chip.make(PARTS - 1)
    out.queue.close()
    for source, target in ((out.channel.port, out.peer.port), (out.peer.port, out.channel.port)):
        assert cross(*channel(source, target, epoch=1), b"next epoch") == b"next epoch"


def test_a_chip_that_fails_in_a_copy_ends_both_ranks_waits(out: Out) -> None:
    arrival = out.peer.post_recv(0)
    out.sender.send_pieces([torch.randn(NUMEL)])
    out.chip.make()
    out.chip.break_down()
    with pytest.raises(BridgeError, match="illegal memory access"):
        out.sender.drain()
    with pytest.raises(PeerLost):
        arrival.wait(WAIT_S)


@pytest.fixture
def _chip_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chip does not compute in the slots."""
    monkeypatch.setattr(coded, "computes_in_slots", lambda _: False)


@pytest.mark.usefixtures("_chip_memory")
def test_an_encoded_message_leaves_part_by_part(out: Out) -> None:
    writer = CodedWriter(out.channel, out.chip, torch.float32, NUMEL, Gate(CODED, "float32", pytest.fail))
    sender = BridgeSender(out.channel, writer, out.queue, Waits(out.chip))
    x, found = torch.randn(NUMEL), torch.empty(NUMEL)
    arrival = out.peer.post_recv(0)
    sender.send_pieces([x])  # returns, with nothing copied
    assert len(out.chip.outward) == CODED_PARTS
    for _ in range(CODED_PARTS):
        assert not arrival.done()
        out.chip.make()
    arrival.wait(WAIT_S)
    data = torch.frombuffer(out.peer.slots.view(0), dtype=torch.uint8)[: arrival.nbytes]
    assert data[-1] == CODED.tag
    kernel(CODED.name, x.device).decode(data[:-1], found)
    assert torch.allclose(found, x, atol=CODED.error_bound * float(x.abs().max()))
    sender.drain()


class In:
    """The receiving end, of a chip that copies later. The sending end is played by the test."""

    def __init__(self, ends: tuple[Channel, Channel]) -> None:
        self.peer, self.channel = ends
        self.chip = LaterChip()
        self.waits = Waits(self.chip)
        self.queue = CopyQueue(self.chip, "in", pytest.fail)
        reader = PlainReader(self.channel, self.chip, torch.float32)
        self.receiver = BridgeReceiver(self.channel, reader, self.chip, self.queue, self.waits)
        self._pool = ThreadPoolExecutor(1)

    def send(self, x: torch.Tensor, filled: int | None = None) -> Ticket:
        """From slot 0, as far as it is said to be filled."""
        torch.frombuffer(self.peer.slots.view(0), dtype=torch.float32)[: len(x)] = x
        return self.peer.send_message(0, x.nbytes, filled)

    def receive(self) -> Future[torch.Tensor]:
        """In a thread of its own."""
        return self._pool.submit(lambda: self.receiver.receive_pieces([Destination((NUMEL,))])[0])

    def close(self) -> None:
        self.chip.make_all()
        self.queue.close()
        self._pool.shutdown()


@pytest.fixture
def into(ports: tuple[Port, Port]) -> Iterator[In]:
    one = In(channel(*ports, slot_bytes=SLOT_BYTES, slots=1))
    yield one
    one.close()


def test_what_has_come_is_copied_in_while_the_rest_is_still_under_way(into: In) -> None:
    x = torch.randn(NUMEL)
    into.receiver.post()
    sent = into.send(x, filled=PART_BYTES)
    received = into.receive()
    until(lambda: len(into.chip.inward) == 1)
    assert not received.done()
    sent.fill(SLOT_BYTES)
    found = received.result(WAIT_S)  # the rank goes on, with nothing copied yet
    sent.wait(WAIT_S)
    assert len(into.chip.inward) == PARTS
    into.chip.make_all()
    assert torch.equal(found, x)
    assert into.waits.received["a"].nbytes == SLOT_BYTES


@pytest.mark.usefixtures("_chip_memory")
def test_an_encoded_message_is_copied_in_while_the_rest_is_still_under_way(into: In) -> None:
    reader = CodedReader(into.channel, into.chip, torch.float32, NUMEL, CODED)
    into.receiver = BridgeReceiver(into.channel, reader, into.chip, into.queue, into.waits)
    data = torch.zeros(CODED.encoded_bytes(NUMEL, "float32") + 1, dtype=torch.uint8)
    data[-1] = CODED.tag
    into.receiver.post()
    torch.frombuffer(into.peer.slots.view(0), dtype=torch.uint8)[: len(data)] = data
    sent = into.peer.send_message(0, len(data), PART_BYTES)
    received = into.receive()
    until(lambda: len(into.chip.inward) == 1)
    assert not received.done()
    sent.fill(len(data))
    received.result(WAIT_S)  # the rank goes on, with nothing copied yet
    sent.wait(WAIT_S)
    assert [copy.nbytes for copy in into.chip.inward] == [PART_BYTES, len(data) - PART_BYTES]


def test_a_slot_is_posted_again_only_when_its_bytes_have_left_it(into: In) -> None:
    first, second = torch.randn(NUMEL), torch.randn(NUMEL)
    into.receiver.post()
    sent = into.send(first)
    found = into.receive().result(WAIT_S)
    sent.wait(WAIT_S)
    into.receiver.post()
    sent = into.send(second)
    into.chip.inward.popleft().make()
    time.sleep(0.2)
    assert not sent.done()
    into.chip.make_all()
    assert torch.equal(found, first)
    found = into.receive().result(WAIT_S)
    sent.wait(WAIT_S)
    into.chip.make_all()
    assert torch.equal(found, second)
    assert into.chip.attended == {"copies-in"}


def test_a_rank_is_one_message_ahead_of_its_chip_and_no_more(into: In) -> None:
    into.chip.computes = True
    for number in range(2):
        into.receiver.post()
        sent = into.send(torch.full((NUMEL,), float(number)))
        received = into.receive()
        if number:
            time.sleep(0.2)
            assert not received.done(), "the chip is still at what was before the last message"
            into.chip.marks.popleft().make()
        received.result(WAIT_S)
        sent.wait(WAIT_S)
        while into.chip.inward:
            into.chip.inward.popleft().make()


def test_a_peer_that_ends_in_the_midst_of_a_message_is_an_error(into: In) -> None:
    into.receiver.post()
    into.send(torch.randn(NUMEL), filled=PART_BYTES)
    received = into.receive()
    until(lambda: len(into.chip.inward) == 1)
    into.peer.port.close()
    with pytest.raises(PeerLost, match="rank a:0 has ended"):
        received.result(WAIT_S)


def test_a_message_of_another_length_is_refused(into: In) -> None:
    into.receiver.post()
    into.send(torch.randn(NUMEL - 1))
    with pytest.raises(WireError, match="another length"):
        into.receive().result(WAIT_S)


SHAPES = st.sampled_from([(7,), (1, 9), (3, 1, 5), (4, 6), (2, 3, 8)])


@given(SHAPES, st.integers(8, 400), st.booleans())
def test_a_cut_tensor_is_whole_in_row_major_order(shape: tuple[int, ...], most_bytes: int, strided: bool) -> None:
    x = torch.arange(math.prod(shape), dtype=torch.float32).view(shape)
    x = torch.stack([x, -x], dim=-1)[..., 0] if strided else x
    parts = list(cut(x, most_bytes))
    assert torch.equal(torch.cat([part.reshape(-1) for part in parts]), x.reshape(-1))
    assert all(part.nbytes <= most_bytes for part in parts)
