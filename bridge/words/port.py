"""Between a rank and the endpoint of its host. Channels go by their ids."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.words.channel import ChannelSpec
from bridge.words.error import ErrorReport
from bridge.words.word import Word

# A rank says


@dataclass(frozen=True)
class Open(Word):
    """This rank's end of a channel is there; with the descriptor of its slots."""

    spec: ChannelSpec


@dataclass(frozen=True)
class Post(Word):
    """The next message that comes may go into a slot."""

    channel: int
    slot: int


@dataclass(frozen=True)
class Send(Word):
    """A message of `nbytes` is to leave from a slot, of which the first `filled` are there."""

    channel: int
    slot: int
    nbytes: int
    filled: int


@dataclass(frozen=True)
class Fill(Word):
    """So many bytes of a message that was sent before it was whole are there now."""

    channel: int
    slot: int
    filled: int


@dataclass(frozen=True)
class Close(Word):
    """A channel is not needed any more."""

    channel: int


@dataclass(frozen=True)
class CloseEpoch(Word):
    """No channel of a plan epoch is needed any more."""

    epoch: int


# The endpoint says, of the oldest ticket of a channel


@dataclass(frozen=True)
class ChannelReport(Word):
    channel: int


@dataclass(frozen=True)
class Filled(ChannelReport):
    """The first `nbytes` of the message that is coming are in its slot."""

    nbytes: int


@dataclass(frozen=True)
class Received(ChannelReport):
    """A message is whole in its slot. `transfer_s` as `Ticket` has it."""

    nbytes: int
    transfer_s: float


@dataclass(frozen=True)
class Sent(ChannelReport):
    """A message is whole in the other end's slot."""


@dataclass(frozen=True)
class Broken(ChannelReport):
    """Every ticket of the channel raises `error`."""

    error: ErrorReport
