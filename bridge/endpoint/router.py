"""Between ranks and links: which frame belongs to which channel of which rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bridge.channel import ChannelSpec
from bridge.endpoint.channel_end import ChannelEnd
from bridge.endpoint.receiving_end import ReceivingEnd
from bridge.endpoint.sending_end import SendingEnd
from bridge.errors import PeerLost, PipeClosed, WireError
from bridge.link.link import Link
from bridge.port.pipe import Pipe
from bridge.port.slots import SlotRing
from bridge.rank import RankId
from bridge.system.loop import Loop
from bridge.words.frame import FrameKind, Header, read_text
from bridge.words.port import ChannelReport, Close, CloseEpoch, Fill, Open, Post, Send
from bridge.words.word import Word, unexpected


class _LocalRank:
    """A rank of this host behind its port."""

    def __init__(self, rank: RankId, pipe: Pipe, router: Router, loop: Loop) -> None:
        self.rank, self.pipe, self._router, self._loop = rank, pipe, router, loop
        self._congested = False
        loop.watch(pipe.fileno(), self._turn)

    def report(self, word: ChannelReport) -> None:
        """Never blocks: a rank reads only while it waits."""
        try:
            self.pipe.offer_word(word)
            self._watch()
        except PipeClosed:
            pass  # reading says so too, and is where it is dealt with

    def detach(self) -> None:
        self._loop.unwatch(self.pipe.fileno())
        self.pipe.close()

    def _turn(self) -> None:
        try:
            for word, fds in self.pipe.drain():
                self._router.on_word(self, word, fds)
            self._watch()
        except PipeClosed:
            self._router.detach(self.rank)

    def _watch(self) -> None:
        congested = not self.pipe.flush()
        if congested != self._congested:
            self._congested = congested
            self._loop.watch(self.pipe.fileno(), self._turn, writable=congested)


@dataclass
class _Early:
    """What the other end said before our rank opened the channel."""

    epoch: int
    credit: int = 0
    goodbye: list[PeerLost] = field(default_factory=list)


class Router:
    """All channels of the ranks of one endpoint. Plan epochs only grow: a closed one never comes back."""

    def __init__(self, loop: Loop, link_to: Callable[[RankId], Link | None]) -> None:
        self._loop, self._link_to = loop, link_to
        self._ranks: dict[RankId, _LocalRank] = {}
        self._receiving: dict[int, ReceivingEnd] = {}
        self._sending: dict[int, SendingEnd] = {}
        self._early: dict[int, _Early] = {}
        self._closed_epoch = -1

    def __contains__(self, rank: RankId) -> bool:
        return rank in self._ranks

    def attach(self, rank: RankId, fd: int) -> None:
        """Serves a rank whose port is at the other end of `fd`. A rank of that name that was here before is gone."""
        self.detach(rank)
        self._ranks[rank] = _LocalRank(rank, Pipe.from_fd(fd), self, self._loop)

    def detach(self, rank: RankId) -> None:
        """The rank has closed its port or died: tells the other ends of its channels."""
        for end in self._ends_of(rank):
            end.send_text(FrameKind.BYE, f"rank {rank} has ended")
            self._forget(end)
        if attached := self._ranks.pop(rank, None):
            attached.detach()

    # what ranks say

    def on_word(self, sender: _LocalRank, word: Word, fds: list[int]) -> None:
        """Port and router are of one release: a word without sense is a fault of ours and ends the endpoint."""
        match word:
            case Post(channel=channel, slot=slot):
                if receiving := self._receiving.get(channel):
                    receiving.post(slot)
            case Send(channel=channel, slot=slot, nbytes=nbytes, filled=filled):
                if sending := self._sending.get(channel):
                    sending.send_message(slot, nbytes, filled)
            case Fill(channel=channel, slot=slot, filled=filled):
                if sending := self._sending.get(channel):
                    sending.fill(slot, filled)
            case Open(spec=spec):
                self._open(sender, spec, fds[0])
            case Close(channel=channel):
                self._close(channel)
            case CloseEpoch(epoch=epoch):
                self._close_epoch(sender.rank, epoch)
            case _:
                raise unexpected(word)

    def _open(self, owner: _LocalRank, spec: ChannelSpec, fd: int) -> None:
        ring = SlotRing.from_fd(fd, spec.slot_bytes, spec.slots)
        sends = spec.source == owner.rank
        remote = spec.target if sends else spec.source
        link = self._link_to(remote)
        facts = spec, ring, link or Link(f"host of {remote}", self._loop, is_lost=True), owner.report
        end: ChannelEnd
        if sends:
            end = self._sending[spec.id] = SendingEnd(*facts)
        else:
            end = self._receiving[spec.id] = ReceivingEnd(*facts)
            ring.release_fd()
        self._catch_up(end, remote)

    def _catch_up(self, end: ChannelEnd, remote: RankId) -> None:
        early = self._early.pop(end.spec.id, None)
        if end.link.is_lost:
            end.fail(PeerLost("peer", end.link.peer, f"there is no connection to {remote}", "look for its own error"))
        if early and isinstance(end, SendingEnd):
            end.on_credit(early.credit)
        for error in early.goodbye if early else ():
            end.fail(error)

    def _close(self, channel: int) -> None:
        if end := self._receiving.get(channel) or self._sending.get(channel):
            self._forget(end)

    def _close_epoch(self, rank: RankId, epoch: int) -> None:
        self._closed_epoch = max(self._closed_epoch, epoch)
        for end in self._ends_of(rank):
            if end.spec.epoch == epoch:
                self._forget(end)
        self._early = {channel: early for channel, early in self._early.items() if early.epoch > epoch}

    # what links bring

    def place_for(self, header: Header) -> memoryview | None:
        """Where the payload of a DATA frame goes; None if it has no place, which `on_frame` deals with."""
        incoming = self._receiving.get(header.channel)
        try:
            return None if incoming is None or incoming.broken else incoming.place_for(header)
        except WireError:
            return None

    def on_frame(self, link: Link, header: Header, payload: memoryview) -> None:
        """A frame of a channel has come. The payload of a DATA frame is where `place_for` said."""
        end = self._end_for(header)
        if end is None:
            self._on_early(link, header, payload)
        elif not end.broken:
            try:
                self._dispatch(end, header, payload)
            except WireError as error:
                self._break(end, error)

    def _dispatch(self, end: ChannelEnd, header: Header, payload: memoryview) -> None:
        match header.kind, end:
            case FrameKind.DATA, ReceivingEnd():
                end.place_for(header)
                end.on_data(header)
            case FrameKind.CREDIT, SendingEnd():
                end.on_credit(header.sequence)
            case FrameKind.ACK, SendingEnd():
                end.on_ack(header.sequence)
            case FrameKind.BYE, _:
                end.fail(_goodbye(end.link, read_text(payload)))
            case FrameKind.ERROR, _:
                end.fail(WireError("channel", str(end.spec), read_text(payload), "see the log of the other host"))

    def _end_for(self, header: Header) -> ChannelEnd | None:
        if header.kind is FrameKind.DATA:
            return self._receiving.get(header.channel)
        if header.kind in (FrameKind.CREDIT, FrameKind.ACK):
            return self._sending.get(header.channel)
        return self._receiving.get(header.channel) or self._sending.get(header.channel)

    def _on_early(self, link: Link, header: Header, payload: memoryview) -> None:
        if header.epoch <= self._closed_epoch or header.kind is FrameKind.DATA:
            link.frames_dropped += 1
            return
        early = self._early.setdefault(header.channel, _Early(header.epoch))
        if header.kind is FrameKind.CREDIT:
            early.credit = header.sequence
        elif header.kind in (FrameKind.BYE, FrameKind.ERROR):
            early.goodbye.append(_goodbye(link, read_text(payload)))

    def link_lost(self, link: Link, error: PeerLost) -> None:
        """Breaks every channel that went over a link."""
        for end in self._ends():
            if end.link is link:
                end.fail(error)

    def close(self) -> None:
        """Detaches all ranks without a word to their peers."""
        for end in self._ends():
            self._forget(end)
        for attached in self._ranks.values():
            attached.detach()

    def _break(self, end: ChannelEnd, error: WireError) -> None:
        end.send_text(FrameKind.ERROR, str(error))
        end.fail(error)

    def _ends(self) -> tuple[ChannelEnd, ...]:
        return (*self._receiving.values(), *self._sending.values())

    def _ends_of(self, rank: RankId) -> Iterator[ChannelEnd]:
        yield from [end for end in self._receiving.values() if end.spec.target == rank]
        yield from [end for end in self._sending.values() if end.spec.source == rank]

    def _forget(self, end: ChannelEnd) -> None:
        table = self._receiving if isinstance(end, ReceivingEnd) else self._sending
        table.pop(end.spec.id, None)
        end.close()


def _goodbye(link: Link, cause: str) -> PeerLost:
    return PeerLost("peer", link.peer, cause, "look for that rank's own error")
