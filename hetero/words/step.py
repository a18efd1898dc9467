"""The report of a step. All times are seconds, all sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.rank import RankId
from bridge.words.word import Word, WordPart

CrossedByPool = Mapping[str, tuple[int, float]]
"""(bytes, seconds waited) by the pool at the other end."""
Spans = tuple[tuple[str, float, float], ...]
"""(label, start, seconds)."""


@dataclass(frozen=True)
class ShadowErrors(WordPart):
    """Of a stage of `pool`, of which the pool `by` has computed a micro-batch again: relative ones of the first unit
    that is beyond the tolerance, else of the one that differs most. `value` is of what the unit gave, `gradient` of the
    gradient of what it was given, if that has one."""

    pipeline: int
    stage: int
    pool: str
    by: str
    micro_batch: int
    unit: int
    unit_kind: str
    value: float
    gradient: float | None
    tolerance: float


@dataclass(frozen=True)
class StepTotals(WordPart):
    """Of the whole job; one rank tells them. `loss` is the mean over `counted_tokens`, and not a number where there are
    none. `eval_loss` after those steps alone that are followed by an evaluation, `shadow` in those alone of which some
    was computed again."""

    loss: float
    tokens: int
    grad_norm: float
    lr: float
    loss_scale: float
    skipped: bool
    consumed_tokens: int
    counted_tokens: int
    eval_loss: float | None = None
    held: bool = False
    """The epoch ends with this step, as somebody asked; see `Hold`."""
    shadow: ShadowErrors | None = None


@dataclass(frozen=True)
class Spent:
    """Where a step went. `data_s` is what it waited for its samples to be read."""

    step: int
    epoch: int
    start: float
    end: float
    forward_s: float
    backward_s: float
    weight_s: float
    optimizer_s: float
    bridge_wait_s: float
    bubble_s: float
    data_s: float
    sent: CrossedByPool
    received: CrossedByPool
    peak_memory_bytes: int
    overrun: bool


@dataclass(frozen=True)
class StepReport(Spent, Word):
    """Of a rank. `spans` are its actions one by one, on traced steps."""

    rank: RankId
    pipeline: int
    stage: int
    tp_rank: int
    totals: StepTotals | None = None
    spans: Spans | None = None


@dataclass(frozen=True)
class StageTimes:
    """A stage in a step, by its slowest rank."""

    pipeline: int
    stage: int
    pool: str
    forward_s: float
    backward_s: float
    weight_s: float
    wait_s: float
    slowest_rank: int
    host: str

    @property
    def compute_s(self) -> float:
        return self.forward_s + self.backward_s + self.weight_s


@dataclass(frozen=True)
class HostStep(Spent):
    """Of all `ranks` of a host. Seconds and bytes are sums over them, `peak_memory_bytes` is of the one with most;
    `spans` by rank."""

    pool: str
    host: str
    ranks: int
    totals: StepTotals | None
    stages: tuple[StageTimes, ...]
    spans: Mapping[str, Spans] | None = None
