"""The per-pool table: emulated and real pools never share one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from hetero.words.pool import Pool

Record = Mapping[str, Any]

COLUMNS = (
    "capacity\ntok/s", "tok/s", "TFLOP/s\nper chip", "MFU", "busy", "bubble", "bridge\nwait", "other", "peak\nMiB",
)  # fmt: skip
SHARES = ("mfu", "busy", "bubble", "bridge_wait", "other")


def pool_tables(records: Sequence[Record], pools: Iterable[Pool]) -> list[Table]:
    """One table of the real and one of the emulated pools, each figure the median over the given steps."""
    if not records:
        return []
    pools = list(pools)
    kinds = [(emulated, [pool for pool in pools if pool.emulated is emulated]) for emulated in (False, True)]
    return [_table(records, members, emulated) for emulated, members in kinds if members]


def overruns(records: Sequence[Record]) -> int:
    return sum(bool(record["overrun"]) for record in records)


def _table(records: Sequence[Record], pools: list[Pool], emulated: bool) -> Table:
    title = "emulated chips: modelled figures, not measurements of hardware" if emulated else "per pool"
    # Narrow enough for 80 columns; what is too long all the same is folded, never cut off.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("pool", overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right", overflow="fold")
    for pool in pools:
        table.add_row(f"{pool.name}\n{pool.size}", *_cells(records, pool.name))
    if emulated:
        table.caption = _caption(records)
        table.caption_justify = "left"
    return table


def _cells(records: Sequence[Record], pool: str) -> list[str]:
    def median(key: str) -> float:
        return statistics.median(record["pools"][pool][key] for record in records)

    return [
        f"{median('capacity_tokens_per_s'):,.0f}",
        f"{median('tokens_per_s'):,.0f}",
        f"{median('tflops_per_chip'):.3g}",
        *(f"{100 * median(key):.1f}%" for key in SHARES),
        f"{max(record['pools'][pool]['peak_memory_bytes'] for record in records) / 2**20:,.0f}",
    ]


def _caption(records: Sequence[Record]) -> str:
    ratio = records[-1]["link_ratio"]
    linked = f"link_ratio {ratio:.3g}; " if ratio is not None else ""
    return f"{linked}overruns in {overruns(records)} of {len(records)} steps"
