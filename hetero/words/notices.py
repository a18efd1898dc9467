"""What a rank tells unasked, for the run's journal: one word for each kind of event, whose data are the word's fields.

Its agent knows which rank said it, and in which epoch and step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bridge.words.word import Word


class RankNotice(Word):
    """`kind` is the event's."""

    kind: ClassVar[str]

    @property
    def facts(self) -> dict[str, Any]:
        """By name of the field."""
        return dict(vars(self))


@dataclass(frozen=True)
class ChipWaits(RankNotice):
    """`chip` has waited so long for others of its pool, and still does: for what `group` does."""

    kind = "chip_waits"
    group: str
    chip: int
    waits_for: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class MemoryUsed(RankNotice):
    """What a chip of a stage holds: `held_bytes` by its driver, `peak_bytes` of tensors, of `limit_bytes`."""

    kind = "memory_used"
    pipeline: int
    stage: int
    held_bytes: int
    peak_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class CodecFallback(RankNotice):
    """A link's `codec` lost `error` of a message of `flow`, which is more than `limit`: `fallback` is used for so many
    `messages`. `link` names the pools at its ends, `target` the rank that receives it."""

    kind = "codec_fallback"
    link: tuple[str, str]
    target: str
    purpose: str
    flow: str
    codec: str
    fallback: str
    error: float
    limit: float
    messages: int
