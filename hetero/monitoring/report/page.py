"""Fills the page. All text of a run is escaped by the template; nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from backends import core_schema
from balancer.plan.equal import named
from hetero.masking import masked
from hetero.monitoring.follow import Follower
from hetero.monitoring.journal import Record
from hetero.monitoring.links import LinkStatus
from hetero.monitoring.progress import event_text
from hetero.monitoring.report.charts import (
    COLORS,
    MOST_ROWS,
    Chart,
    loss_chart,
    pools_chart,
    spent_chart,
    throughput_chart,
    timeline_chart,
)
from hetero.monitoring.report.tables import FlopsTable, LedgerTable
from hetero.monitoring.status import (
    PoolStatus,
    RunStatus,
    status,
    time_scale,
    typical_links,
    typical_pools,
    typical_step_s,
)
from hetero.monitoring.timeline import Timeline
from hetero.terminal import plain


@dataclass(frozen=True)
class PoolKind:
    """The real or the emulated pools, which never share a column or an axis."""

    emulated: bool
    pools: Sequence[PoolStatus]
    links: Sequence[LinkStatus]
    throughput: Chart
    spent: Chart


def render(follower: Follower, ledger: LedgerTable, flops: FlopsTable, timeline: Timeline | None) -> str:
    """The whole page."""
    run = status(follower)
    page = _environment().get_template("report.html.jinja")
    return page.render(
        run=run,
        kinds=_kinds(run, typical_pools(follower), typical_links(follower)),
        step_s=typical_step_s(follower),
        loss=loss_chart(run),
        throughput=throughput_chart(run),
        ledger=ledger,
        flops=flops,
        timeline=timeline,
        timeline_chart=timeline_chart(timeline) if timeline else None,
        most_rows=MOST_ROWS,
        colors=_pool_colors(run),
        hosts=_hosts(follower),
        emulation=_emulation(follower, run),
        time_scale=time_scale(follower),
        job=core_schema.dump(masked(follower.job), allow_unicode=True),
        plotly=Markup(get_plotlyjs()),
        style=Markup(style()),
        script=Markup(_own("report.js")),
    )


def style() -> str:
    """The style sheet of pages that are written."""
    return _own("report.css")


def _environment() -> Environment:
    loader = PackageLoader("hetero.monitoring", "report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_printable
    )
    environment.filters |= {
        "percent": lambda value: f"{value:.1%}",
        "number": lambda value: f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}",
        "mib": lambda value: f"{value / 2**20:,.0f}",
        "named": named,
        "clock": _clock,
        "event": event_text,
        "figure": lambda value: json.dumps(value) if isinstance(value, (dict, list)) else str(value),
    }
    return environment


def _printable(value: Any) -> Any:
    """All that the template writes and a run may have said; markup of the page's own stays."""
    return plain(value) if type(value) is str else value


def _own(name: str) -> str:
    return (files("hetero.monitoring") / "report" / name).read_text(encoding="utf-8")


def _kinds(run: RunStatus, pools: Sequence[PoolStatus], links: Sequence[LinkStatus]) -> list[PoolKind]:
    kinds = []
    for emulated in (False, True):
        members = [pool for pool in pools if pool.emulated is emulated]
        between = [link for link in links if link.emulated is emulated]
        if members:
            kinds.append(PoolKind(emulated, members, between, pools_chart(run, members), spent_chart(members)))
    return kinds


def _pool_colors(run: RunStatus) -> dict[str, str]:
    """The same as in the charts, where each kind of pools counts for itself."""
    kinds = [[pool.name for pool in run.pools if pool.emulated is emulated] for emulated in (False, True)]
    return {name: COLORS[place % len(COLORS)] for names in kinds for place, name in enumerate(names)}


def _hosts(follower: Follower) -> tuple[list[str], list[list[Any]]]:
    """What the driver and each host said of themselves when they were ready: heading and rows."""
    started = follower.last_of_kind.get("started")
    driver: list[Record] = [{"host": "driver", **(started.get("data") or {})}] if started else []
    told = [_flat(one) for one in [*driver, *(event.get("data") or {} for event in follower.hosts.values())]]
    keys = list(dict.fromkeys(key for host in told for key in host))
    return keys, [[host.get(key, "") for key in keys] for host in told]


def _flat(told: Record) -> Record:
    """With each version in a column of its own."""
    software = told.get("software")
    rest = {key: value for key, value in told.items() if key != "software"}
    return rest | software if isinstance(software, dict) else told


def _emulation(follower: Follower, run: RunStatus) -> list[tuple[PoolStatus, Any]]:
    """Each emulated pool, and in what way it was."""
    declared: Record = follower.job.get("pools") or {}
    return [(pool, declared[pool.name]["emulate"]) for pool in run.pools if pool.emulated]


def _clock(unix_s: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(unix_s or 0))
