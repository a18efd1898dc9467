"""What the controller says: orders for hosts, and answers, reports and notices for the driver's shell. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bridge.words.endpoint import EndpointOrder
from hetero.cluster.control.events import Trouble
from hetero.monitoring.notice import Notice
from hetero.words.orders import Hold, Lease, RankOrder
from hetero.words.piece import StoredPiece
from hetero.words.step import HostStep

# Orders for a host: its agent carries these out, and passes on the words that are for its ranks or its endpoint


@dataclass(frozen=True)
class StartHost:
    """Start endpoint, fork server and ranks."""


@dataclass(frozen=True)
class StopHost:
    """End ranks, fork server and endpoint in good order."""


HostOrder: TypeAlias = StartHost | StopHost | Lease | Hold | RankOrder[Any] | EndpointOrder[Any]

# For the driver's shell


@dataclass(frozen=True)
class ToHosts:
    """One message to each of `hosts`."""

    hosts: Sequence[str]
    order: HostOrder


@dataclass(frozen=True)
class Done:
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
    reports: Sequence[HostStep]


@dataclass(frozen=True)
class CheckpointWritten:
    """All `pieces` of the checkpoint after `step` steps are there: now it wants its manifest."""

    step: int
    epoch: int
    pieces: Sequence[StoredPiece]


@dataclass(frozen=True)
class Fail:
    """The run is over: the trouble at its root, and what came in its wake."""

    root: Trouble
    others: Sequence[Trouble] = ()


Instruction: TypeAlias = ToHosts | Done | Refuse | Deliver | Notice | CheckpointWritten | Fail
