"""What `hetero train` shows while it trains: a live view in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backends.sizes import size_text
from hetero.monitoring.table import Record, overruns, pool_tables
from hetero.terminal import plain
from hetero.words.pool import Pool

RECENT_STEPS = 10
SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_VIEWS = 0.25
PLAIN_WIDTH = 110
STAY = (
    "warning",
    "passed_over",
    "updates_skipped",
    "updates_recovered",
    "loss_scale_least",
    "rebalanced",
    "replan_refused",
)
"""Events that remain on a terminal when the view has gone on."""


class Progress:
    """A context manager that is fed records and events as they come, and prints the per-pool table at its end."""

    def __init__(
        self,
        steps: int,
        pools: Iterable[Pool],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = steps
        self._pools = list(pools)
        self._console = console or _console()
        self._clock = clock
        self._records: list[Record] = []
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._printed_at = self._drawn_at = float("-inf")
        self._phase = "starting"
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if self._is_terminal else None

    @property
    def _is_terminal(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        self.print_summary()

    def event(self, event: dict[str, Any]) -> None:
        """Show what the run is doing besides its steps. A warning stays on the screen."""
        self._phase = event_text(event)
        if self._live:
            self._live.update(self._view(), refresh=True)
        if not self._live or stays(event):
            self._console.print(plain(self._phase), highlight=False, markup=False, soft_wrap=True)

    def record(self, record: Record) -> None:
        """Show one finished step."""
        self._records.append(record)
        self._recent.append(record["step_s"])
        now = self._clock()
        if self._live:
            is_due = now - self._drawn_at >= SECONDS_BETWEEN_VIEWS
            self._drawn_at = now if is_due else self._drawn_at
            self._live.update(self._view(), refresh=is_due)
            return
        is_last = record["step"] + 1 >= self._steps
        if is_last or now - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = now
            self._console.print(self._line(), highlight=False, markup=False, soft_wrap=True)

    def print_summary(self) -> None:
        """The final table: medians over the steps, without the first, which also warms up."""
        for table in pool_tables(self._records[1:] or self._records, self._pools):
            self._console.print(table)

    def _view(self) -> RenderableType:
        if not self._records:
            return Text(plain(self._phase))
        record = self._records[-1]
        bar = ProgressBar(total=self._steps, completed=record["step"] + 1, width=60)
        return Group(Text(self._line()), bar, _pool_rows(record, self._pools), Text(plain(self._phase), style="dim"))

    def _line(self) -> str:
        record = self._records[-1]
        parts = [
            f"step {record['step'] + 1}/{self._steps}",
            f"loss {_number(record['loss'], '.4f')}",
            f"{record['tokens_per_s']:,.0f} tok/s",
            f"{duration(self._seconds_left(record))} left",
        ]
        if record["emulated"]:
            parts.append("emulated")
        if overruns(self._records):
            parts.append(f"{overruns(self._records)} overruns")
        return "  ".join(parts)

    def _seconds_left(self, record: Record) -> float:
        return (self._steps - record["step"] - 1) * statistics.median(self._recent)


def _pool_rows(record: Record, pools: Iterable[Pool]) -> Table:
    table = Table.grid(padding=(0, 2))
    for pool in pools:
        figures = record["pools"].get(pool.name)
        if figures:
            table.add_row(str(pool), *_pool_cells(figures))
    return table


def _pool_cells(pool: Record) -> list[str]:
    return [
        f"can {pool['capacity_tokens_per_s']:,.0f} tok/s",
        f"does {pool['tokens_per_s']:,.0f} tok/s",
        f"MFU {pool['mfu']:.1%}",
        f"busy {pool['busy']:.1%}",
        f"bubble {pool['bubble']:.1%}",
        f"bridge wait {pool['bridge_wait']:.1%}",
    ]


def event_text(event: dict[str, Any]) -> str:
    """An event as one line of plain text."""
    where = event.get("rank") or event.get("pool")
    data = event.get("data") or {}
    details = ", ".join(_detail(key, value) for key, value in data.items() if isinstance(value, (str, int, float)))
    when = f"at step {event['step']}" if event.get("step") else ""
    return " ".join(part for part in (event["kind"].replace("_", " "), where and f"({where})", when, details) if part)


def stays(event: dict[str, Any]) -> bool:
    """Whether it remains on a terminal. Chips that hold less than a plan says harm nobody."""
    return event["kind"] in STAY or (event["kind"] == "memory_differs" and event["data"]["ratio"] > 1)


def duration(seconds: float) -> str:
    """Such as 3:07, or 2:03:07 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _detail(key: str, value: str | int | float) -> str:
    if key.endswith("_bytes") and not isinstance(value, str):
        return f"{key.removesuffix('_bytes')} {size_text(value)}"
    return f"{key} {format(value, ',.4g') if isinstance(value, float) else value}"


def _console() -> Console:
    """Of the terminal's width; a file or pipe has none, and gets a fixed one."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    return console
