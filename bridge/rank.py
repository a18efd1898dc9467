"""The name of a rank: which chip of which pool."""

from __future__ import annotations

from typing import NamedTuple


class RankId(NamedTuple):
    """Chip `index` of `pool`, counted over the pool's hosts. Its text form is `pool:index`."""

    pool: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a rank

    def __str__(self) -> str:
        return f"{self.pool}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> RankId:
        """Read `nvidia:0`. Raises ValueError on anything else."""
        pool, colon, index = text.rpartition(":")
        if not (colon and pool and index.isascii() and index.isdigit()):
            raise ValueError(f"a rank is written pool:index, as in nvidia:0, not {text!r}")
        return cls(pool, int(index))
