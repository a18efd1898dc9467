"""What the controller hears: from the driver's shell, from hosts, and from the clock. Plain data, one class each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

from bridge.rank import RankId
from bridge.words.endpoint import EndpointOrder
from bridge.words.word import Answer
from hetero.cluster.fleet import FleetLink
from hetero.words.notices import RankNotice
from hetero.words.orders import Configure, RankOrder
from hetero.words.piece import StoredPiece
from hetero.words.step import HostStep


class Severity(IntEnum):
    """How near to the root of a failure a report is: the lowest one is named, of equals the first heard."""

    DIED = 0
    """A process ended without a word."""
    OWN_ERROR = 1
    """A process described an error of its own."""
    ABORTED = 2
    """A process aborted itself, as collective libraries do when a peer is gone."""
    SILENT = 3
    """A rank said nothing for too long."""
    IN_THE_WAKE = 4
    """A process lost a peer, or waited for one in vain."""


# From the driver's shell


@dataclass(frozen=True)
class StartAsked:
    """Start all hosts."""


@dataclass(frozen=True)
class LinksAsked:
    """Links are to be as `links` say, from now on: their pace, and how many streams they have."""

    links: Sequence[FleetLink]


@dataclass(frozen=True)
class OrderAsked:
    """Have an order carried out; by all hosts, if it does not say by which."""

    order: RankOrder[Any] | EndpointOrder[Any]
    hosts: Sequence[str] | None = None


@dataclass(frozen=True)
class ConfigureAsked:
    """Begin a plan epoch."""

    order: Configure


@dataclass(frozen=True)
class RunAsked:
    """Run until `until` steps are done."""

    until: int


@dataclass(frozen=True)
class HoldAsked:
    """Let the run stand once the ranks are through with a step, the next one at best. Its run then is done early."""


@dataclass(frozen=True)
class StopAsked:
    """End all ranks in good order."""


@dataclass(frozen=True)
class Tick:
    """The clock, in seconds of any monotonic origin."""

    now: float


# From hosts


@dataclass(frozen=True)
class HostReady:
    """Endpoint listens, ranks are up. `uris` by scheme; `key` is the public half of the endpoint's key pair, by which
    others know it; `node` is the machine's name, `machine` what tells whether two hosts are one
    (hetero/cluster/host/machine.py); `software` are versions: of its system, driver and packages."""

    host: str
    node: str
    address: str
    uris: Mapping[str, str]
    key: str
    pids: Mapping[str, int] = field(default_factory=dict)
    machine: str = ""
    software: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """All of a host that were asked, ranks in their order or its endpoint, have answered an order."""

    host: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class StepReported:
    """One step of all ranks of a host, merged."""

    report: HostStep


@dataclass(frozen=True)
class PiecesSaved:
    """All ranks of a host are through with a save, in the order of saves; `pieces` leaves out those with nothing to
    save."""

    host: str
    step: int
    pieces: Sequence[StoredPiece]


@dataclass(frozen=True)
class RankNoticed:
    """Something that a rank wants in the run's journal. Rare: it is not merged with what others say. `step` is
    the one that it has yet to report."""

    host: str
    rank: RankId
    notice: RankNotice
    step: int
    epoch: int


@dataclass(frozen=True)
class StrangerRefused:
    """Somebody spoke to a host's endpoint who is no peer or makes no sense. `data`: from, cause, count so far."""

    host: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Warned:
    """What a host goes on in spite of, in words."""

    host: str
    note: str


@dataclass(frozen=True)
class HostStopped:
    host: str


@dataclass(frozen=True)
class Trouble:
    """A process of a host died, failed or fell silent. `process` is rank, endpoint, fork server or agent; of no host,
    "", are the parts of Ray."""

    host: str
    process: str
    severity: Severity
    cause: str
    rank: RankId | None = None
    error: Mapping[str, Any] | None = None
    progress: int = 0
    """Of the silent: the less it has done, the likelier it is what the others wait for."""


Event: TypeAlias = (
    StartAsked
    | LinksAsked
    | OrderAsked
    | ConfigureAsked
    | RunAsked
    | HoldAsked
    | StopAsked
    | Tick
    | HostReady
    | Answered
    | StepReported
    | PiecesSaved
    | RankNoticed
    | StrangerRefused
    | Warned
    | HostStopped
    | Trouble
)
