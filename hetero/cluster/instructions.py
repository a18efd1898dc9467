"""What the controller says: orders for hosts, and answers, reports and news for the driver's shell. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hetero.cluster.events import Trouble

# Orders, which an agent carries out on its host


@dataclass(frozen=True)
class StartHost:
    """Start endpoint, nursery and ranks."""


@dataclass(frozen=True)
class OpenWorld:
    """Rank 0 of the pool makes the meeting point of its `size` ranks."""

    size: int


@dataclass(frozen=True)
class JoinWorld:
    size: int
    address: str


@dataclass(frozen=True)
class Introduce:
    """Tell this endpoint of its `peers`, how to reach each, and by `routes` which of them serves which rank. They are
    connected when their ranks begin to talk."""

    peers: Mapping[str, Mapping[str, Any]]
    routes: Mapping[str, str]


@dataclass(frozen=True)
class ProbeLink:
    """Measure the way from this host to another by so many bytes."""

    peer: str
    nbytes: int


@dataclass(frozen=True)
class CalibrateRanks:
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class ConfigureRanks:
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Lease:
    """The ranks may run all steps below `until` of the epoch."""

    epoch: int
    until: int


@dataclass(frozen=True)
class StopHost:
    """End ranks, nursery and endpoint in good order."""


Order: TypeAlias = (
    StartHost | OpenWorld | JoinWorld | Introduce | ProbeLink | CalibrateRanks | ConfigureRanks | Lease | StopHost
)

# For the driver's shell


@dataclass(frozen=True)
class ToHosts:
    """One message to each of `hosts`."""

    hosts: Sequence[str]
    order: Order


@dataclass(frozen=True)
class Answer:
    """What was asked last is done."""

    value: Any = None


@dataclass(frozen=True)
class Refuse:
    """What was asked last cannot be done; the session goes on."""

    error: Exception


@dataclass(frozen=True)
class Deliver:
    """All hosts have reported `step`."""

    step: int
    reports: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class News:
    """Something for the journal, or, `kind` "saved", all pieces of a checkpoint that now wants its manifest."""

    kind: str
    step: int
    epoch: int
    data: Mapping[str, Any] = field(default_factory=dict)
    pool: str | None = None
    rank: str | None = None


@dataclass(frozen=True)
class Fail:
    """The run is over: the trouble at its root, and what came in its wake."""

    root: Trouble
    others: Sequence[Trouble] = ()


Instruction: TypeAlias = ToHosts | Answer | Refuse | Deliver | News | Fail
