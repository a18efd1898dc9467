"""What `hetero top` shows of a run: the newest step, pool by pool and stage by stage, and the newest events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hetero.monitoring.follow import Follower
from hetero.monitoring.links import LinkStatus
from hetero.monitoring.progress import duration, event_text
from hetero.monitoring.status import ENDS, PoolStatus, RunStatus, StageStatus, status
from hetero.terminal import plain

T = TypeVar("T", PoolStatus, LinkStatus)

EVENTS_SHOWN = 6
MOST_LETTERS = 4000
"""Of one text, such as the cause of a failure."""
CURVE_WIDTH = 60
BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
STATE_STYLES = {"running": "green", "finished": "green", "failed": "bold red", "silent": "bold yellow"}
POOL_COLUMNS = (
    "capacity\ntok/s", "tok/s", "TFLOP/s\nper chip", "MFU", "busy", "bubble", "bridge\nwait", "other",
    "sent\nMB/s", "peak\nMiB",
)  # fmt: skip
LINK_COLUMNS = ("MB/step", "MB/s", "exposed s", "of the step")
STAGE_COLUMNS = ("forward s", "backward s", "weight s", "wait s")


def watch(follower: Follower, console: Console, every_s: float) -> RunStatus:
    """Show the run until it has ended; what is shown last stays on the screen."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            follower.poll()
            now = status(follower)
            live.update(view(now), refresh=True)
            if now.state in ENDS:
                return now
            time.sleep(every_s)


def view(run: RunStatus) -> RenderableType:
    """The run as one screen."""
    parts: list[RenderableType] = [_heading(run)]
    if run.step:
        bar = ProgressBar(total=run.steps or run.step, completed=run.step, width=CURVE_WIDTH)
        parts += [Padding(bar, 0), _figures(run)]
        parts += [_Curve("loss", [point.loss for point in run.series])]
        parts += [_Curve("tok/s", [point.tokens_per_s for point in run.series]), ""]
        parts += [_pools(run, members) for members in _kinds(run.pools) if members]
        parts += [_links(run, members) for members in _kinds(run.links) if members]
        parts += ["", _stages(run), ""]
    parts += [_plain(f"  {idle}", "yellow") for idle in run.idle]
    parts += [_plain(f"  {event_text(event)}", "dim") for event in run.events[-EVENTS_SHOWN:]]
    return Group(*parts)


def _heading(run: RunStatus) -> Text:
    heading = Text.assemble(_plain(run.name, "bold"), "  ", _plain(run.state, STATE_STYLES.get(run.state, "dim")))
    lines = [heading, _plain(run.failure or "", "red"), _plain(run.label or "", "magenta")]
    return Text("\n").join(line for line in lines if line)


def _figures(run: RunStatus) -> Text:
    left = run.seconds_left
    facts = [
        f"step {run.step}/{run.steps or '?'}",
        "loss not finite" if run.loss is None else f"loss {run.loss:.4f}",
        f"validation loss {run.evaluations[-1].eval_loss:.4f}" if run.evaluations else "",
        f"{run.tokens_per_s:,.0f} tok/s",
        f"step {run.step_s:.3g} s",
        f"goodput {run.goodput:.1%}" if run.goodput is not None else "",
        f"{duration(left)} left" if left is not None else "",
        f"{run.overruns} overruns" if run.overruns else "",
        f"shadow {run.shadow}" if run.shadow else "",
    ]
    return Text("  ".join(fact for fact in facts if fact))


@dataclass(frozen=True)
class _Curve:
    """In bars that the terminal has letters for."""

    name: str
    values: Sequence[float | None]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _curve(self.name, self.values, PLAIN_BARS if options.ascii_only else BARS)


def _curve(name: str, values: Sequence[float | None], bars: str) -> Text:
    """The values as a row of bars, each of equally many steps, by the last of them."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Text(f"{name:6}")
    width = min(CURVE_WIDTH, len(known))
    shown = [known[(place + 1) * len(known) // width - 1] for place in range(width)]
    low, high = min(shown), max(shown)
    row = "".join(bars[round((value - low) / ((high - low) or 1) * (len(bars) - 1))] for value in shown)
    return Text(f"{name:6}{row}  {low:,.4g} to {high:,.4g}")


def _kinds(shown: Sequence[T]) -> list[list[T]]:
    """Real and emulated ones, which never share a column."""
    return [[one for one in shown if one.emulated is emulated] for emulated in (False, True)]


def _pools(run: RunStatus, pools: Sequence[PoolStatus]) -> Table:
    title = "emulated pools (modelled figures)" if pools[0].emulated else "pools"
    table = _table(f"{title}, step {run.step}", ["pool", *POOL_COLUMNS], ["pool"])
    for pool in pools:
        table.add_row(_plain(f"{pool.name}\n{pool.size}"), *_pool_cells(pool))
    return table


def _pool_cells(pool: PoolStatus) -> list[str]:
    return [
        f"{pool.capacity_tokens_per_s:,.0f}",
        f"{pool.tokens_per_s:,.0f}",
        f"{pool.tflops_per_chip:.3g}",
        *(f"{share:.1%}" for share in (pool.mfu, pool.busy, pool.bubble, pool.bridge_wait, pool.other)),
        f"{pool.sent_bytes_per_s / 1e6:,.3g}",
        f"{pool.peak_memory_bytes / 2**20:,.0f}",
    ]


def _links(run: RunStatus, links: Sequence[LinkStatus]) -> Table:
    title = "emulated links (modelled figures)" if links[0].emulated else "links"
    table = _table(title, ["from", "to", *LINK_COLUMNS], ["from", "to"])
    for link in links:
        rates = f"{link.bytes_sent / 1e6:,.3g}", f"{link.bytes_per_s / 1e6:,.3g}"
        share = link.exposed_s / run.step_s if run.step_s else 0.0
        table.add_row(_plain(link.source), _plain(link.target), *rates, f"{link.exposed_s:.3f}", f"{share:.1%}")
    return table


def _stages(run: RunStatus) -> Table:
    columns = ["stage", "units", *STAGE_COLUMNS, "slowest", "host"]
    table = _table("stages, by their slowest rank; of equal pipelines the slowest", columns, ["slowest", "host"])
    for stage in run.stages:
        seconds = (stage.forward_s, stage.backward_s, stage.weight_s, stage.wait_s)
        names = _plain(stage.slowest_rank), _plain(stage.host)
        table.add_row(stage.name, _units(run, stage), *(f"{s:.3f}" for s in seconds), *names)
    return table


def _units(run: RunStatus, stage: StageStatus) -> str:
    """Such as 0-2: the first and the last unit of each of the stage's chunks."""
    try:
        planned = run.plan.pipelines[stage.pipeline].stages[stage.stage] if run.plan else None
    except IndexError:  # a plan of another epoch
        planned = None
    return ", ".join(f"{start}-{stop - 1}" for start, stop in (planned.units if planned else ()))


def _table(title: str, columns: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    return table


def _plain(text: str, style: str = "") -> Text:
    """Text of a run's files: no markup, and nothing that a terminal would obey."""
    return Text(plain(text, MOST_LETTERS), style)
