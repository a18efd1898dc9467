"""Between an agent and a rank: each order stands behind its answer, `class Calibrate(RankOrder[Calibrated])`.

A new one is such a pair, a `case` and its handler in `hetero/engine/rank.py`, and its caller in
`hetero/cluster/session.py`; whoever is between them passes it on, but for the paths of files that an agent has brought
to its host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.words.word import A, Answer, Order, Word, WordPart
from hetero.words.piece import StoredPiece
from hetero.words.pool import Pool
from hetero.words.spec import CalibrationSpec, RunSpec


class RankOrder(Order[A]):
    """What is asked of every rank of a host."""


@dataclass(frozen=True)
class WorldOpened(Answer):
    """Where the ranks of the pool meet."""

    address: str


@dataclass(frozen=True)
class OpenWorld(RankOrder[WorldOpened]):
    """Index 0 of the pool alone, on `host`: make the meeting point of its ranks."""

    pool: Pool
    host: str


@dataclass(frozen=True)
class WorldJoined(Answer):
    """`usable_bytes` is what the chip has free, None if it doesn't say; `note` what a person should know of it."""

    usable_bytes: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class JoinWorld(RankOrder[WorldJoined]):
    """Meet the pool's ranks at `address`, under `secret`; "" is in memory, whose descriptor comes with it."""

    pool: Pool
    address: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class TimedUnit(WordPart):
    """What one kind of unit takes on a tensor-parallel group of a pool, in seconds per sequence of a micro-batch.
    `products_s` are for matrix products and attention, forward and backward; None for emulated chips, whose time is not
    theirs. Where that was asked for, `input_s` and `weight_s` are of a backward in two actions, and `selective_s` and
    `full_s` of one that makes values again, as far as the unit has any.

    `spread` is by how much one of the `repeats` differs from the next, as a fraction."""

    pool: str
    tp: int
    kind: str
    forward_s: float
    backward_s: float
    products_s: float | None = None
    micro_batch: int = 1
    input_s: float | None = None
    weight_s: float | None = None
    selective_s: float | None = None
    full_s: float | None = None
    repeats: int = 1
    spread: float = 0.0


@dataclass(frozen=True)
class Calibrated(Answer):
    """Of one rank for all of its pool."""

    measurements: tuple[TimedUnit, ...]


@dataclass(frozen=True)
class Calibrate(RankOrder[Calibrated]):
    """Time units on this chip."""

    spec: CalibrationSpec


@dataclass(frozen=True)
class Rate(WordPart):
    """How much of one thing a chip of a pool does in a second, or a group of `tp` of them: FLOPs of `products` (tokens,
    inputs and outputs of one are its `shape`), bytes of a copy in `memory`, `to_host` or `from_host`, bytes of an
    `all_reduce`, parameters of an `update`, or of a `host_update`. `latency_s` is what the smallest takes, where that
    was looked at. `spread` as of a `TimedUnit`."""

    pool: str
    part: str
    tp: int
    shape: tuple[int, ...]
    per_s: float
    latency_s: float = 0.0
    repeats: int = 1
    spread: float = 0.0


@dataclass(frozen=True)
class Rated(Answer):
    """Of one rank for all of its pool."""

    rates: tuple[Rate, ...]


@dataclass(frozen=True)
class MeasureRates(RankOrder[Rated]):
    """Time what units are made of on this chip."""

    spec: CalibrationSpec


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
    """Drop the epoch before and begin another."""

    spec: RunSpec


@dataclass(frozen=True)
class Lease(Word):
    """The ranks may run all steps below `until` of an epoch."""

    epoch: int
    until: int


@dataclass(frozen=True)
class Hold(Word):
    """Have an epoch end early. One rank hears it: with the sums of its next step all come to know that this was the
    last, whatever their leases say."""

    epoch: int


# What a rank says of itself; what it tells for the journal are `hetero/words/notices.py`


@dataclass(frozen=True)
class Ready(Word):
    """It runs, and takes orders."""


@dataclass(frozen=True)
class Saved(Word):
    """`piece` is its entry of the checkpoint of so many steps, None if it has nothing to save. Said when its file is
    whole, which may be steps later, and in the order of saves."""

    step: int
    piece: StoredPiece | None
