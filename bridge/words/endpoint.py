"""Between an agent and the endpoint that it has started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.rank import RankId
from bridge.words.error import ErrorReport
from bridge.words.word import A, Answer, Order, Word, WordPart

MOST_STREAMS = 16
"""Of a link."""


class EndpointOrder(Order[A]):
    """What an agent asks of its endpoint."""


@dataclass(frozen=True)
class Listening(Answer):
    """`uris` by scheme; `key` is the public half of the endpoint's key pair, in hex."""

    uris: Mapping[str, str]
    key: str


@dataclass(frozen=True)
class Listen(EndpointOrder[Listening]):
    """Take the name `endpoint` and bind a port of `host` for each scheme."""

    endpoint: str
    host: str
    schemes: tuple[str, ...]


@dataclass(frozen=True)
class Attached(Answer):
    rank: RankId


@dataclass(frozen=True)
class Attach(EndpointOrder[Attached]):
    """Serve a rank; with the descriptor of its port."""

    rank: RankId


@dataclass(frozen=True)
class PaceSpec(WordPart):
    """What an emulated link carries in one direction, and how late."""

    bytes_per_s: float
    delay_s: float


@dataclass(frozen=True)
class PeerSpec(WordPart):
    """Another endpoint, and how it is reached.

    uri     None where it is it that dials, or where no way leads there
    key     the public half of its key pair, in hex
    streams how many of them the link is to have, with a connection each
    sealed  whether frames are encrypted
    pace    None of a real link
    """

    uri: str | None
    key: str
    streams: int = 1
    sealed: bool = False
    pace: PaceSpec | None = None


@dataclass(frozen=True)
class Introduced(Answer):
    """The endpoint knows its peers."""


@dataclass(frozen=True)
class Introduce(EndpointOrder[Introduced]):
    """There are these peers, by name, and `routes` says which of them serves which rank. They are connected when their
    ranks begin to talk."""

    peers: Mapping[str, PeerSpec]
    routes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stats(Answer):
    """Counts of each link, by peer."""

    peers: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class AskStats(EndpointOrder[Stats]):
    """Say what has crossed each link."""


@dataclass(frozen=True)
class LinkProbed(Answer):
    """How fast a link is, and what a gigabyte over it costs this endpoint."""

    peer: str
    bytes_per_s: float
    rtt_s: float | None
    cpu_s_per_gb: float


@dataclass(frozen=True)
class ProbeLink(EndpointOrder[LinkProbed]):
    """Measure the way to a peer by so many bytes, while nothing else crosses."""

    peer: str
    nbytes: int


@dataclass(frozen=True)
class Stop(Word):
    """End in good order. Ranks are told so too."""


# Unasked


@dataclass(frozen=True)
class LostPeer(Word):
    """An endpoint that was there is gone."""

    peer: str
    cause: str


@dataclass(frozen=True)
class TurnedAway(Word):
    """Somebody who came is no peer or makes no sense; `count` of them so far."""

    stranger: str
    cause: str
    count: int


@dataclass(frozen=True)
class Failed(Word):
    """What was asked cannot be done, or the speaker ends. Ranks say so too."""

    error: ErrorReport
