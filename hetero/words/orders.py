"""Between an agent and a rank: each order stands behind its answer, `class Calibrate(RankOrder[Calibrated])`.

A new one is such a pair, a `case` and its handler in `hetero/engine/rank.py`, and its caller in
`hetero/cluster/session.py`; whoever is between them passes it on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bridge.words.word import A, Answer, Order, Word, WordPart

Plain = dict[str, Any]
"""Plain data whose shape is its owner's business, who insists on it."""


class RankOrder(Order[A]):
    """What is asked of every rank of a host."""


@dataclass(frozen=True)
class WorldOpened(Answer):
    """Where the ranks of the pool meet."""

    address: str


@dataclass(frozen=True)
class OpenWorld(RankOrder[WorldOpened]):
    """Index 0 of the pool alone, on `host`: make the meeting point of its `size` ranks. `pool` is a `PoolRun`."""

    pool: Plain
    size: int
    host: str


@dataclass(frozen=True)
class WorldJoined(Answer):
    """`usable_bytes` is what the chip has free, None if it doesn't say; `note` what a person should know of it."""

    usable_bytes: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class JoinWorld(RankOrder[WorldJoined]):
    """Meet the pool's `size` ranks at `address`, under `secret`; "" is in memory, whose descriptor comes with it.
    `pool` is a `PoolRun`."""

    pool: Plain
    size: int
    address: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Calibrated(Answer):
    """Rows of `hetero.engine.calibration`; of one rank for all of its pool."""

    measurements: tuple[Plain, ...]


@dataclass(frozen=True)
class Calibrate(RankOrder[Calibrated]):
    """Time units on this chip. `spec` is a `hetero.engine.spec.CalibrationSpec`."""

    spec: Plain


@dataclass(frozen=True)
class Moved(WordPart):
    """Of state that moved live, what a rank did: the bytes that it sent, by pool, those that it was to send, the most
    that its tensors were planned to take meanwhile, and the time in all."""

    sent_bytes: dict[str, int]
    planned_bytes: int
    peak_bytes: int
    seconds: float


@dataclass(frozen=True)
class Configured(Answer):
    """`active`: the plan uses this rank. `fingerprint` is that of the text which it reads at `path`, None of none;
    `note` what a person should know of its chip."""

    epoch: int
    active: bool = True
    path: str | None = None
    fingerprint: str | None = None
    moved: Moved | None = None
    note: str | None = None


@dataclass(frozen=True)
class Configure(RankOrder[Configured]):
    """Drop the epoch before and begin another. `spec` is a `hetero.engine.spec.RunSpec`."""

    spec: Plain

    @property
    def epoch(self) -> int:
        return int(self.spec["epoch"])

    @property
    def start(self) -> int:
        """The first step."""
        return int(self.spec.get("start", 0))


@dataclass(frozen=True)
class Lease(Word):
    """The ranks may run all steps below `until` of an epoch."""

    epoch: int
    until: int


# What a rank says of itself; what it tells for the journal are `hetero/words/notices.py`


@dataclass(frozen=True)
class Ready(Word):
    """It runs, and takes orders."""


@dataclass(frozen=True)
class Saved(Word):
    """`piece` is its entry of the checkpoint of so many steps, None if it has nothing to save."""

    step: int
    piece: Plain | None
