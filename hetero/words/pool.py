"""What a pool is, as the job file says it and everybody else holds it: hosts, ranks, and all who watch the run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends.chip import load_chip
from backends.options import EmulateOptions
from balancer.cost.topology import PoolSpec
from bridge.rank import RankId
from bridge.words.word import WordPart


@dataclass(frozen=True)
class Pool(WordPart):
    """Equal chips of one family. `chips_per_host` 0 puts all of them on one host; `emulate` None are real ones."""

    name: str
    family: str
    chip: str
    count: int
    chips_per_host: int = 0
    emulate: EmulateOptions | None = None

    def __str__(self) -> str:
        """Such as "nvidia (8 x A800-80G, emulated)"."""
        return f"{self.name} ({self.size}{', emulated' if self.emulated else ''})"

    @property
    def size(self) -> str:
        """Such as "8 x A800-80G"."""
        return f"{self.count} x {self.chip}"

    @property
    def emulated(self) -> bool:
        return self.emulate is not None

    @property
    def host_chips(self) -> int:
        """How many chips a host has; the last host may have fewer."""
        return self.chips_per_host or self.count

    @property
    def on_one_host(self) -> bool:
        return self.count <= self.host_chips

    def planned(self, precision: str, tp: int | None = None, usable_bytes: int | None = None) -> PoolSpec:
        """As the balancer knows it: computing in `precision`, and only in groups of `tp` where that is given.
        `usable_bytes` is what its chips have said that they have free, None where they have not."""
        chip = load_chip(self.chip)
        if self.emulate is not None:
            chip = replace(chip, matrix_efficiency=None)  # it is paced alike whatever the shapes of its kernels
        if self.emulate is not None and self.emulate.host_gb_per_s is not None:
            chip = replace(chip, host_bytes_per_s=self.emulate.host_gb_per_s * 1e9)
        planned = PoolSpec(
            self.name,
            chip,
            self.count,
            self.host_chips,
            chip.usable_bytes if usable_bytes is None else usable_bytes,
            tp,
            precision,
            paced_as=self.emulate.precision if self.emulate else None,
        )
        return planned if usable_bytes is None else replace(planned, memory_told_by="the chip itself")

    def ranks_by_host(self) -> tuple[tuple[RankId, ...], ...]:
        ranks = [RankId(self.name, index) for index in range(self.count)]
        return tuple(tuple(ranks[first : first + self.host_chips]) for first in range(0, self.count, self.host_chips))
