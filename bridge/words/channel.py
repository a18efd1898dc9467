"""What a channel is: a named one-way flow of messages from one rank to another, within one plan epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property

import xxhash

from bridge.rank import RankId
from bridge.words.word import WordPart

PART_BYTES = 4 << 20
"""How finely the ends of a channel tell how far a slot is filled: a part's copy takes longer than the telling."""
SYNC_BUCKET_BYTES = 1 << 19
"""How much of the gradients travels at once where nobody says otherwise."""
PURPOSES = ("activation", "gradient", "sync", "tied", "state", "shadow", "control")


@dataclass(frozen=True)
class ChannelSpec(WordPart):
    """Both ends write down the same spec, apart from `slots`, and so agree on the channel's id without a word.

    slot_bytes  the longest message
    slots       how many messages may be under way at this end
    """

    epoch: int
    purpose: str
    name: str
    source: RankId
    target: RankId
    slot_bytes: int
    slots: int

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise ValueError(f"purpose {self.purpose!r}; it is one of {', '.join(PURPOSES)}")
        if self.source == self.target:
            raise ValueError(f"{self.name}: {self.source} would send to itself")
        if self.slot_bytes < 0 or self.slots < 1 or not 0 <= self.epoch < 1 << 32:
            raise ValueError(f"{self.name}: {self.slots} slots of {self.slot_bytes} bytes in epoch {self.epoch}")

    @cached_property
    def id(self) -> int:
        """64-bit hash of everything but `slots`; never 0, which on the wire means no channel."""
        text = "\0".join(map(str, asdict(replace(self, slots=1)).values()))
        return xxhash.xxh3_64_intdigest(text.encode()) or 1

    def __str__(self) -> str:
        return f"{self.purpose} {self.name} {self.source} -> {self.target} (epoch {self.epoch})"
