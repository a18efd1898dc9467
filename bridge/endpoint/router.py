"""Between ranks and links: which frame belongs to which channel of which rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.endpoint.channel_end import ChannelEnd
from bridge.endpoint.local_rank import LocalRank
from bridge.endpoint.receiving_end import ReceivingEnd
from bridge.endpoint.sending_end import SendingEnd
from bridge.errors import BridgeError, PeerLost, WireError
from bridge.link.link import Link
from bridge.port.slots import SlotRing
from bridge.rank import RankId
from bridge.system.loop import Loop
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import Failed
from bridge.words.error import ErrorReport
from bridge.words.frame import FrameKind, Header, read_text
from bridge.words.port import Close, CloseEpoch, Fill, Open, Post, Send
from bridge.words.word import Word, refused, unexpected


@dataclass
class _Early:
    """What the other end said before our rank opened the channel."""

    epoch: int
    credit: int = 0
    goodbye: list[PeerLost] = field(default_factory=list)


class Router:
    """All channels of the ranks of one endpoint. Plan epochs only grow: what all ranks have closed never comes back.

    A rank that says what makes no sense ends itself and nobody else: it is told, so are the ranks that it talks to, and
    `report` has Failed.
    """

    def __init__(self, loop: Loop, link_to: Callable[[RankId], Link | None], report: Callable[[Word], object]) -> None:
        self._loop, self._link_to, self._report = loop, link_to, report
        self._ranks: dict[RankId, LocalRank] = {}
        self._receiving: dict[int, ReceivingEnd] = {}
        self._sending: dict[int, SendingEnd] = {}
        self._early: dict[int, _Early] = {}
        self._closed_epoch = -1

    def __contains__(self, rank: RankId) -> bool:
        return rank in self._ranks

    def attach(self, rank: RankId, fd: int) -> None:
        """Serves a rank whose port is at the other end of `fd`. A rank of that name that was here before is gone."""
        if known := self._ranks.get(rank):
            self._on_gone(known)
        self._ranks[rank] = LocalRank(rank, fd, self._loop, self._on_word, self._on_gone)

    def _on_gone(self, rank: LocalRank, error: BridgeError | None = None) -> None:
        """Tells the other ends of its channels that a rank has ended, or makes no sense and is not served any more."""
        cause = f"rank {rank.rank} has ended"
        if error:
            cause += f": its endpoint does not serve it any more: {error}"
            told = type(error)(error.key, error.value, f"rank {rank.rank} says it: {error.rule}", error.remedy)
            self._report(Failed(ErrorReport.of(told)))
            rank.refuse(told)
        for end in tuple(rank.ends.values()):
            end.send_text(FrameKind.BYE, cause)
            self._forget(rank, end)
        del self._ranks[rank.rank]
        rank.close()

    # what ranks say

    def _on_word(self, sender: LocalRank, word: Word, fds: list[int]) -> None:
        match word:
            case Open(spec=spec):
                self._open(sender, spec, self._slots(sender, word, fds))
            case CloseEpoch(epoch=epoch):
                self._close_epoch(sender, epoch)
            case Post() | Send() | Fill() | Close():
                if end := sender.ends.get(word.channel):  # else it is closed already
                    self._on_channel_word(sender, end, word)
            case _:
                raise unexpected(word)

    def _on_channel_word(self, sender: LocalRank, end: ChannelEnd, word: Post | Send | Fill | Close) -> None:
        match word, end:
            case Post(), ReceivingEnd():
                end.post(word)
            case Send(), SendingEnd():
                end.send_message(word)
            case Fill(), SendingEnd():
                end.fill(word)
            case Close(), _:
                self._forget(sender, end)
            case _:
                raise refused(word, "channel", f"this is the other end of {end.spec}")

    def _slots(self, sender: LocalRank, word: Open, fds: list[int]) -> SlotRing:
        """Those of a channel that a rank opens. Raises WordError if that cannot be."""
        spec = word.spec
        if sender.rank not in (spec.source, spec.target) or spec.id in sender.ends:
            raise refused(word, "spec", "it is open already, or another rank's")
        if not fds:
            raise refused(word, "spec", "the descriptor of its slots comes with it")
        try:
            return SlotRing.from_fd(fds.pop(0), spec.slot_bytes, spec.slots)
        except (OSError, ValueError) as error:
            raise refused(word, "spec", f"these are not its slots: {error}") from error

    def _open(self, owner: LocalRank, spec: ChannelSpec, ring: SlotRing) -> None:
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
        owner.ends[spec.id] = end
        self._catch_up(end, remote)

    def _catch_up(self, end: ChannelEnd, remote: RankId) -> None:
        early = self._early.pop(end.spec.id, None)
        if end.link.is_lost:
            end.fail(PeerLost("peer", end.link.peer, f"there is no connection to {remote}", "look for its own error"))
        if early and isinstance(end, SendingEnd):
            end.on_credit(early.credit)
        for error in early.goodbye if early else ():
            end.fail(error)

    def _close_epoch(self, rank: LocalRank, epoch: int) -> None:
        rank.closed_epoch = max(rank.closed_epoch, epoch)
        self._closed_epoch = max(self._closed_epoch, min(one.closed_epoch for one in self._ranks.values()))
        for end in [end for end in rank.ends.values() if end.spec.epoch == epoch]:
            self._forget(rank, end)
        self._early = {channel: early for channel, early in self._early.items() if early.epoch > self._closed_epoch}

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
        for rank in self._ranks.values():
            for end in tuple(rank.ends.values()):
                self._forget(rank, end)
            rank.close()

    def _break(self, end: ChannelEnd, error: WireError) -> None:
        end.send_text(FrameKind.ERROR, str(error))
        end.fail(error)

    def _ends(self) -> tuple[ChannelEnd, ...]:
        return (*self._receiving.values(), *self._sending.values())

    def _forget(self, owner: LocalRank, end: ChannelEnd) -> None:
        table = self._receiving if isinstance(end, ReceivingEnd) else self._sending
        del table[end.spec.id], owner.ends[end.spec.id]
        end.close()


def _goodbye(link: Link, cause: str) -> PeerLost:
    return PeerLost("peer", link.peer, cause, "look for that rank's own error")
