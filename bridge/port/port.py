"""A port: the rank's side of the bridge, its channels, and tickets for what is under way. No torch, no thread."""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable

from bridge.errors import BridgeError, BridgeTimeout, EpochClosed, PeerLost, PipeClosed
from bridge.port.pipe import Pipe
from bridge.port.slots import SlotRing
from bridge.rank import RankId
from bridge.system.awake import LONGEST_S, AwakeClock
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import Failed
from bridge.words.port import Broken, ChannelReport, Close, CloseEpoch, Fill, Filled, Open, Post, Received, Send, Sent
from bridge.words.word import Word, unexpected


class Ticket:
    """One message under way, in or out. The slot belongs to the bridge until the ticket is done.

    nbytes      length of the message; of a receive, once it is done
    filled      so many bytes of it are in the slot here, from the first on
    transfer_s  of a receive: seconds from when the message could begin to leave (its first bytes in a slot, and a slot
                posted for them) until it was whole in the slot, by the clocks of both hosts; 0.0 of a send
    """

    def __init__(self, channel: Channel, slot: int, nbytes: int) -> None:
        self.channel, self.slot, self.nbytes = channel, slot, nbytes
        self.filled = 0
        self.transfer_s = 0.0
        self._arrived = False

    def done(self, nbytes: int | None = None) -> bool:
        """Whether `wait` would return or raise at once. Looks at what the endpoint has said, without blocking."""
        if not self._settled(nbytes):
            self.channel.port.poll()
        return self._settled(nbytes)

    @property
    def settled(self) -> bool:
        """The same of the whole message, without a look: it stays as it is until somebody polls or waits."""
        return self._settled()

    def wait(self, deadline_s: float, nbytes: int | None = None) -> None:
        """Returns when the message has arrived whole: in our slot, or in the peer's. Of a receive that may be longer, a
        wait for its first `nbytes` returns with them.

        Raises BridgeTimeout after `deadline_s` seconds (the ticket stays valid), PeerLost if the peer has gone,
        WireError if a frame was damaged, EpochClosed if the epoch was closed.
        """
        if not self.channel.port.wait(lambda: self._settled(nbytes), deadline_s):
            remedy = "look whether that rank is alive and as far as this one, or allow more time"
            raise BridgeTimeout("channel", str(self.channel.spec), f"{self._what()} within {deadline_s:g} s", remedy)
        if not self._here(nbytes):
            assert self.channel.error is not None
            raise self.channel.error

    def free(self) -> None:
        """Of a receive that was posted ahead of its slot: nobody needs that any more. Any thread may say so."""
        self.channel.tell(Post(self.channel.spec.id, self.slot))

    def fill(self, nbytes: int) -> None:
        """Of a send: the first `nbytes` of the message are in the slot, and may leave. Any thread may say so."""
        if nbytes > self.filled and not self._settled():
            self.filled = nbytes
            self.channel.tell(Fill(self.channel.spec.id, self.slot, nbytes))

    def _settled(self, nbytes: int | None = None) -> bool:
        return self._here(nbytes) or self.channel.error is not None

    def _here(self, nbytes: int | None) -> bool:
        return self._arrived or (nbytes is not None and self.filled >= nbytes)

    def _what(self) -> str:
        spec = self.channel.spec
        if spec.source == self.channel.port.rank:
            return f"{spec.target} did not take a message of {self.nbytes} bytes"
        return f"{spec.source} sent no message"

    def _complete(self, nbytes: int, transfer_s: float) -> None:
        self.nbytes, self.filled, self.transfer_s = nbytes, nbytes, transfer_s
        self._arrived = True


class Channel:
    """One end of a channel at its rank. The slots are shared with the endpoint; reach them through `slots.view`."""

    def __init__(self, port: Port, spec: ChannelSpec, slots: SlotRing) -> None:
        self.port, self.spec, self.slots = port, spec, slots
        self.error: BridgeError | None = None
        self._tickets: deque[Ticket] = deque()
        self._busy: set[int] = set()

    def post_recv(self, slot: int, free: bool = True) -> Ticket:
        """Expects the next message in `slot`, whose content is the bridge's from now on, or, if it is not `free` yet,
        from `Ticket.free` on. Messages arrive in the order of sending, into slots in the order of posting."""
        ticket = self._expect("post", self.spec.target, slot, 0)
        if free:
            ticket.free()
        return ticket

    def send_message(self, slot: int, nbytes: int, filled: int | None = None) -> Ticket:
        """Sends the first `nbytes` of `slot`, 0 allowed, of which `filled` are there (all, if it does not say): the
        others leave as `Ticket.fill` tells of them. What is there must stay as it is until the ticket is done, which
        is when the receiver has the message."""
        filled = nbytes if filled is None else filled
        if not 0 <= filled <= nbytes <= self.spec.slot_bytes:
            raise ValueError(f"{filled} of {nbytes} bytes from a slot of {self.spec.slot_bytes} on {self.spec}")
        ticket = self._expect("send", self.spec.source, slot, nbytes)
        ticket.filled = filled
        self.tell(Send(self.spec.id, slot, nbytes, filled))
        return ticket

    def tell(self, word: Post | Send | Fill) -> None:
        """Tells the endpoint something of this channel, unless it is broken."""
        if self.error is None:
            self.port.tell(word)

    def _expect(self, do: str, actor: RankId, slot: int, nbytes: int) -> Ticket:
        if actor != self.port.rank:
            raise ValueError(f"{self.port.rank} cannot {do} on {self.spec}")
        if slot in self._busy or not 0 <= slot < self.spec.slots:
            raise ValueError(f"slot {slot} of {self.spec.slots} on {self.spec} is busy or does not exist")
        ticket = Ticket(self, slot, nbytes)
        if self.error is None:
            self._busy.add(slot)
            self._tickets.append(ticket)
        return ticket

    def on_report(self, report: ChannelReport) -> None:
        """The endpoint says how far the oldest ticket is, or that the channel is broken."""
        match report:
            case Filled(nbytes=nbytes):
                self._tickets[0].filled = nbytes
            case Received(nbytes=nbytes, transfer_s=transfer_s):
                self._finished()._complete(nbytes, transfer_s)
            case Sent():
                ticket = self._finished()
                ticket._complete(ticket.nbytes, 0.0)
            case Broken(error=error):
                self.fail(error.error())
            case _:
                raise unexpected(report)

    def _finished(self) -> Ticket:
        """The oldest ticket, whose slot is free again."""
        ticket = self._tickets.popleft()
        self._busy.discard(ticket.slot)
        return ticket

    def fail(self, error: BridgeError) -> None:
        """Every ticket that is not done raises `error`, those to come too."""
        if self.error is None:
            remedy = f"{error.remedy} ({self.spec})" if error.remedy else str(self.spec)
            self.error = type(error)(error.key, error.value, error.rule, remedy)


class Port:
    """A rank's connection to the endpoint of its host. Takes over the socket.

    Whoever waits reads the socket, for all; several threads may wait at the same time.
    """

    def __init__(self, pipe: Pipe | socket.socket, rank: RankId) -> None:
        self.rank = rank
        self._pipe = pipe if isinstance(pipe, Pipe) else Pipe(pipe)
        self._channels: dict[int, Channel] = {}
        self._lost: BridgeError | None = None
        self._turn = threading.Condition()
        self._reading = False
        self._poller = select.poll()
        self._poller.register(self._pipe.fileno(), select.POLLIN)

    def open(self, spec: ChannelSpec) -> Channel:
        """This rank's end of a channel; the peer opens its own, before or after. One end per spec."""
        if self.rank not in (spec.source, spec.target) or spec.id in self._channels:
            raise ValueError(f"{spec} is open already or not a channel of {self.rank}")
        channel = Channel(self, spec, SlotRing(spec.slot_bytes, spec.slots))
        self._channels[spec.id] = channel
        self.tell(Open(spec), [channel.slots.fd])
        channel.slots.release_fd()
        if self._lost:
            channel.fail(self._lost)
        return channel

    def close_channel(self, channel: Channel) -> None:
        """Closes this end of a channel before its epoch is over. Nothing may be under way."""
        self.tell(Close(channel.spec.id))
        channel.slots.close()
        del self._channels[channel.spec.id]

    def close_epoch(self, epoch: int) -> None:
        """Closes all channels of a plan epoch; tickets under way raise EpochClosed. Epochs grow, none is used again."""
        self.tell(CloseEpoch(epoch))
        for channel in [channel for channel in self._channels.values() if channel.spec.epoch == epoch]:
            channel.fail(EpochClosed("epoch", epoch, "this plan epoch is over"))
            channel.slots.close()
            del self._channels[channel.spec.id]

    def close(self) -> None:
        """Peers that still wait for this rank are told."""
        self._pipe.close()
        self._lose(EpochClosed("port", str(self.rank), "it is closed"))
        for channel in self._channels.values():
            channel.slots.close()

    def fail(self, error: BridgeError) -> None:
        """This rank cannot go on: whoever waits here gets `error`, and its peers are told. From any thread."""
        self._lose(error)
        self._pipe.shut()

    def tell(self, word: Word, fds: tuple[int, ...] | list[int] = ()) -> None:
        """Tells the endpoint. If that is gone, the channels say so when they are waited for."""
        try:
            self._pipe.send_word(word, fds)
        except PipeClosed:
            self.poll()  # what it said last
            self._lose(_endpoint_gone())

    def poll(self) -> None:
        """Takes in what the endpoint has said, without blocking; if another thread is at it, leaves it to that."""
        self.wait(lambda: True, 0.0, look=True)

    def wait(self, settled: Callable[[], bool], seconds: float, *, look: bool = False) -> bool:
        """Takes in reports until `settled()` or for `seconds` of being awake; the last value of `settled()`."""
        clock = AwakeClock()
        with self._turn:
            while look or not settled():
                left = seconds - clock.now()
                if left < 0 and not look:
                    return False
                if self._reading:
                    self._turn.wait(min(max(0.0, left), LONGEST_S))
                else:
                    self._read(min(max(0.0, left), LONGEST_S))
                if look:
                    break
        return settled()

    def _read(self, seconds: float) -> None:
        self._reading = True
        self._turn.release()
        try:
            self._poller.poll(seconds * 1000)
        finally:
            self._turn.acquire()
            self._reading = False
            self._turn.notify_all()
        self._take_in()

    def _take_in(self) -> None:
        try:
            for word, _ in self._pipe.drain():
                match word:
                    case ChannelReport(channel=number):
                        if channel := self._channels.get(number):  # else of a closed epoch
                            channel.on_report(word)
                    case Failed(error=error):  # it does not serve this rank any more
                        self._lose(error.error())
                    case _:
                        raise unexpected(word)
        except PipeClosed:
            self._lose(_endpoint_gone())

    def _lose(self, error: BridgeError) -> None:
        self._lost = self._lost or error  # what came first is why
        for channel in list(self._channels.values()):
            channel.fail(self._lost)


def _endpoint_gone() -> PeerLost:
    return PeerLost(
        "endpoint", None, "the bridge endpoint of this host has ended", "look for its error in the agent's log"
    )
