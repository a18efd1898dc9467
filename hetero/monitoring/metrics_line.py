"""A line of `metrics.jsonl`: what the recorder writes of a step, and what views read.

Only the step must be there: runs of earlier releases lack some of the keys, and lines of strangers may lack any. A
number that JSON does not have is null. All times are seconds, all sizes bytes; docs/glossary.md explains the words.
"""

from __future__ import annotations

from typing_extensions import NotRequired, Required, TypedDict

from hetero.monitoring.bounds import Count, Number, Time


class PoolFigures(TypedDict, total=False):
    """Of a pool in a step."""

    capacity_tokens_per_s: Number | None
    tokens_per_s: Number | None
    tflops_per_chip: Number | None
    mfu: Number | None
    busy: Number | None
    optimizer: Number | None
    bubble: Number | None
    bridge_wait: Number | None
    other: Number | None
    data_wait: Number | None
    """A part of `other`, which runs of earlier releases do not tell."""
    bytes_sent: Number | None
    bytes_received: Number | None
    peak_memory_bytes: Number | None


class LinkFigures(TypedDict):
    """One direction between two pools."""

    source: str
    target: str
    bytes_sent: Number
    bytes_received: NotRequired[Number]
    bytes_per_s: Number
    exposed_s: Number


class StageFigures(TypedDict, total=False):
    """As `StageTimes` has them."""

    pipeline: Required[Count]
    stage: Required[Count]
    pool: str
    forward_s: Number | None
    backward_s: Number | None
    weight_s: Number | None
    wait_s: Number | None
    slowest_rank: Count | None
    host: str | None


class ShadowFigures(TypedDict, total=False):
    """As `ShadowErrors` has them: an error that is null is not finite, and a gradient's may not be there."""

    pipeline: Required[Count]
    stage: Required[Count]
    pool: str
    by: str
    micro_batch: Count
    unit: Count
    unit_kind: str
    value: Number | None
    gradient: NotRequired[Number | None]
    tolerance: Number | None


class MetricsLine(TypedDict, total=False):
    """In the order in which it is written. `Follower` knows a line by its first key, and a whole one by its last."""

    step: Required[Count]
    time: Time | None
    epoch: Count | None
    loss: Number | None
    grad_norm: Number | None
    lr: Number | None
    loss_scale: Number | None
    skipped: bool | None
    tokens: Number | None
    consumed_tokens: Number | None
    counted_tokens: Number | None
    """Of `tokens`, those whose loss is counted: runs of earlier releases counted all."""
    eval_loss: Number | None
    """In the lines of those steps alone after which the held-out samples were measured."""
    shadow: ShadowFigures | None
    """In the lines of those steps alone of which another pool has computed some again."""
    step_s: Number | None
    tokens_per_s: Number | None
    goodput: Number | None
    emulated: bool
    overrun: bool | None
    link_ratio: Number | None
    pools: dict[str, PoolFigures] | None
    links: list[LinkFigures] | None
    stages: list[StageFigures] | None
