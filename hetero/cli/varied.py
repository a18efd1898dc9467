"""What if: the plans of a job with other values, as a table, as data and as a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hetero.job.file.variants import Variant
    from hetero.job.planning.plan_job import Planned

ROW, LETTER, BARS, FIGURES = 26, 7, 420, 130
"""Pixels of the plot: a row's height, a letter's width, and the widths of bars and figures."""
_WIDEST = 44


def as_data(now: Planned, found: Sequence[Variant]) -> str:
    """One JSON object: the job as it is, and each variant with its settings."""
    rows = [{"settings": list(one.settings), "why_not": one.why_not} | _facts(one.planned) for one in found]
    return json.dumps({"now": _facts(now), "variants": rows}, indent=2)


def print_variants(now: Planned, found: Sequence[Variant], console: Console | None = None) -> None:
    console = console or Console()
    table = Table(title="what if", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    longest = max(len(setting) for one in found for setting in one.settings)
    table.add_column("with", min_width=min(longest, _WIDEST), overflow="fold")
    for column in ("step", "tokens/s", "now x", "ideal x"):
        table.add_column(column, justify="right")
    table.add_row("the job as it is", *_columns(now, now))
    for one in found:
        figures = _columns(one.planned, now) if one.planned else ["no plan", "-", "-", "-"]
        table.add_row(_name(one), *figures)
    console.print(table)
    for why in dict.fromkeys(one.why_not for one in found if one.planned is None):
        console.print(f"no plan: {why}", soft_wrap=True, markup=False, highlight=False)


def _columns(planned: Planned, now: Planned) -> list[str]:
    prediction = planned.prediction
    ratio = prediction.tokens_per_s / now.prediction.tokens_per_s
    figures = f"{prediction.step_s:.4g} s", f"{prediction.tokens_per_s:,.0f}", f"{ratio:.3f}"
    return [*figures, f"{prediction.efficiency_vs_ideal:.3f}"]


def _name(one: Variant) -> Text:
    """Its settings, and the pools that its plan leaves out."""
    idle = sorted(one.planned.job.pools.keys() - one.planned.plan.pools()) if one.planned else ()
    return Text("\n".join([*one.settings, *(f"  {pool} is idle" for pool in idle)]))


def _facts(planned: Planned | None) -> dict[str, Any]:
    if planned is None:
        return {"step_s": None, "tokens_per_s": None, "efficiency_vs_ideal": None, "pools": []}
    prediction = planned.prediction
    return {
        "step_s": prediction.step_s,
        "tokens_per_s": prediction.tokens_per_s,
        "efficiency_vs_ideal": prediction.efficiency_vs_ideal,
        "pools": sorted(planned.plan.pools()),
    }


def plot(now: Planned, found: Sequence[Variant]) -> str:
    """An SVG of bars: tokens per second of each that has a plan."""
    rows = [("the job as it is", now.prediction.tokens_per_s)]
    rows += [(", ".join(one.settings), one.planned.prediction.tokens_per_s) for one in found if one.planned]
    most, left = max(rate for _, rate in rows), LETTER * (2 + max(len(name) for name, _ in rows))
    width, height = left + BARS + FIGURES, ROW * (len(rows) + 1)
    drawn = [f'<text x="{left}" y="{ROW * 0.7:.0f}" font-weight="bold">predicted tokens/s</text>']
    for number, (name, rate) in enumerate(rows, 1):
        top, long = ROW * number, BARS * rate / most
        middle = f'y="{top + ROW * 0.65:.0f}"'
        drawn.append(f'<text x="{left - 8}" {middle} text-anchor="end">{escape(name)}</text>')
        fill = "#8a8f98" if number == 1 else "#3b6fd4"
        drawn.append(f'<rect x="{left}" y="{top + 4}" width="{long:.1f}" height="{ROW - 8}" fill="{fill}"/>')
        drawn.append(f'<text x="{left + long + 6:.1f}" {middle}>{rate:,.0f}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = ' font-family="Inter, sans-serif" font-size="13" fill="#20242c">'
    return head + style + f'<rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>\n'
