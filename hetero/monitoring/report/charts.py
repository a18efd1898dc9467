"""The report's charts as plain data, for plotly.js to draw.

Plotly reads a little HTML in labels, so each name from a run's files is escaped and comes out as it was written.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from hetero.monitoring.follow import Point
from hetero.monitoring.status import PoolStatus, RunStatus
from hetero.monitoring.timeline import Timeline
from hetero.terminal import word

Chart = dict[str, Any]

COLORS = ("#3b7dd8", "#e07b39", "#2a9d74", "#b5529f", "#c9a227", "#5fa8d3", "#d1495b", "#7a8b99")
SPENT = {"busy": "#2a9d74", "bubble": "#c9a227", "bridge_wait": "#d1495b", "other": "#8a94a0"}
KINDS = {
    "F": "#3b7dd8", "B": "#2a9d74", "I": "#5fa8d3", "W": "#b5529f", "SYNC": "#7a5cc9", "STEP": "#e07b39",
    "wait": "#c8ced6",
}  # fmt: skip
MOST_ROWS = 64
ROW_PX = 26


def loss_chart(run: RunStatus) -> Chart:
    lines = [_line("training loss", run.series, [point.loss for point in run.series], COLORS[0])]
    if run.evaluations:
        validation = [point.eval_loss for point in run.evaluations]
        lines.append(_line("validation loss", run.evaluations, validation, COLORS[1]) | {"mode": "lines+markers"})
    return _chart(lines, "step", "loss per token")


def throughput_chart(run: RunStatus) -> Chart:
    tokens = [point.tokens_per_s for point in run.series]
    return _from_zero(_chart([_line("job", run.series, tokens, COLORS[0])], "step", "tokens/s"))


def pools_chart(run: RunStatus, pools: Sequence[PoolStatus]) -> Chart:
    """What each pool did, and dotted, what it could do if it never waited."""
    lines = []
    for place, pool in enumerate(pools):
        color = COLORS[place % len(COLORS)]
        actual = [point.pool_tokens_per_s.get(pool.name) for point in run.series]
        capacity = [point.capacity.get(pool.name) for point in run.series]
        lines.append(_line(pool.name, run.series, actual, color))
        dashed = _line(f"{pool.name} capacity", run.series, capacity, color)
        lines.append(dashed | {"line": {"color": color, "width": 1.5, "dash": "dot"}, "showlegend": False})
    return _from_zero(_chart(lines, "step", "tokens/s"))


def spent_chart(pools: Sequence[PoolStatus]) -> Chart:
    """Where each pool's time goes."""
    names = [_label(pool.name) for pool in pools]
    bars = [
        _bars(key.replace("_", " "), names, [getattr(pool, key) for pool in pools], color)
        for key, color in SPENT.items()
    ]
    chart = _chart(bars, "part of the step", None)
    chart["layout"] |= {"barmode": "stack", "height": 130 + ROW_PX * len(pools) * 2, "hovermode": "y unified"}
    chart["layout"]["xaxis"] |= {"tickformat": ".0%", "range": [0, 1]}
    chart["layout"]["yaxis"] |= {"type": "category", "autorange": "reversed"}
    return chart


def timeline_chart(timeline: Timeline) -> Chart:
    """A row for each of the first `MOST_ROWS` ranks, an action a bar."""
    rows = list(timeline.ranks.items())[:MOST_ROWS]
    kinds = dict.fromkeys(span.kind for _, spans in rows for span in spans)
    bars = []
    for kind in sorted(kinds, key=lambda kind: list(KINDS).index(kind) if kind in KINDS else len(KINDS)):
        found = [(rank, span) for rank, spans in rows for span in spans if span.kind == kind]
        lengths = [span.seconds for _, span in found]
        bar = _bars(kind, [_label(rank) for rank, _ in found], lengths, KINDS.get(kind, "#8a94a0"))
        bars.append(bar | {"base": [span.start_s for _, span in found], "text": [_label(s.name) for _, s in found]})
        bars[-1] |= {"textposition": "none", "hovertemplate": "%{text}: %{x:.4f} s<extra></extra>"}
    chart = _chart(bars, "seconds", None)
    chart["layout"] |= {"barmode": "overlay", "height": 130 + ROW_PX * len(rows), "hovermode": "closest"}
    ranks = [_label(rank) for rank, _ in rows]
    chart["layout"]["yaxis"] |= {"type": "category", "categoryarray": ranks, "autorange": "reversed"}
    return chart


def _line(name: str, points: Iterable[Point], values: Sequence[float | None], color: str) -> Chart:
    steps = [point.step for point in points]
    return {
        "type": "scatter", "mode": "lines", "name": _label(name), "x": steps, "y": list(values),
        "line": {"color": color, "width": 2},
    }  # fmt: skip


def _bars(name: str, rows: Sequence[str], lengths: Sequence[float], color: str) -> Chart:
    return {
        "type": "bar", "orientation": "h", "name": _label(name), "y": list(rows), "x": list(lengths),
        "marker": {"color": color},
    }  # fmt: skip


def _chart(data: list[Chart], across: str, up: str | None) -> Chart:
    upward = {"automargin": True} | ({"title": {"text": up}} if up else {})
    layout = {"xaxis": {"title": {"text": across}}, "yaxis": upward, "showlegend": len(data) > 1}
    return {"data": data, "layout": layout}


def _from_zero(chart: Chart) -> Chart:
    chart["layout"]["yaxis"]["rangemode"] = "tozero"
    return chart


def _label(text: str) -> str:
    return html.escape(word(text), quote=False)
