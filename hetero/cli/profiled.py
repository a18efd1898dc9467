"""How a profile is shown."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hetero.job.planning.links import Probed, link_spec
from hetero.job.planning.problem import topology

if TYPE_CHECKING:
    from hetero.job.job import Job
    from hetero.job.planning.profile import Profile, Row

PLAIN_WIDTH = 160
MEASURED, SAID, SHEET = "measured", "job file", "data sheet"
_UNITS = {"products": ("TFLOP/s", 1e12), "update": ("M parameters/s", 1e6), "host_update": ("M parameters/s", 1e6)}
_BYTES = "GB/s", 1e9
_SECONDS = "forward_s", "backward_s", "input_s", "weight_s", "selective_s", "full_s"


def as_data(job: Job, found: Profile) -> str:
    """One JSON object: where and when, and all rows, each with its origin."""
    data = {
        "job": job.name,
        "emulated": job.emulated,
        "measured_at": found.at,
        "where": found.where,
        "units": [{**row, "origin": MEASURED} for row in found.units()],
        "rates": _rates(job, found),
        "links": _links(job, found),
    }
    return json.dumps(data, indent=2)


def print_profile(job: Job, found: Profile, console: Console | None = None) -> None:
    console = console or Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(Text(told(found)), soft_wrap=True)
    if job.emulated and not all(pool.emulate for pool in job.pools.values()):
        console.print("beside emulated chips that are slowed, real chips and links count as so many times faster")
    console.print(_unit_table(found))
    console.print(_rate_table(_rates(job, found)))
    if links := _links(job, found):
        console.print(_link_table(links))


def told(found: Profile) -> str:
    """Such as "measured 2026-11-29 23:10 on host1, host2"."""
    hosts = (found.where or {}).get("hosts", {})
    nodes = ", ".join(sorted({str(node) for node, _ in hosts.values()}))
    return f"measured {time.strftime('%Y-%m-%d %H:%M', time.localtime(found.at))} on {nodes}"


def _rates(job: Job, found: Profile) -> list[dict[str, Any]]:
    """With the data sheets' where nothing was measured."""
    rows, known = [{**row, "origin": MEASURED} for row in found.rates], {(r["pool"], r["part"]) for r in found.rates}
    for pool in topology(job).pools:
        sheet = {
            "memory": pool.chip.memory_bytes_per_s,
            "to_host": pool.chip.host_bytes_per_s,
            "from_host": pool.chip.host_bytes_per_s,
            "products": pool.flops_per_s,
        }
        missing = {part: rate for part, rate in sheet.items() if (pool.name, part) not in known}
        rows += [
            {"pool": pool.name, "part": part, "tp": 1, "shape": (), "per_s": rate, "origin": SHEET}
            for part, rate in missing.items()
        ]
    return sorted(rows, key=lambda row: (row["pool"], row["part"], row["tp"]))


def _links(job: Job, found: Profile) -> list[dict[str, Any]]:
    """With those that the job file describes; a link that nobody has said anything of is none of these."""
    rows, measured = [{**row, "origin": MEASURED} for row in found.links], Probed(found.links)
    for a, b in combinations(job.pools, 2):
        if job.bridge.link(a, b).gbit_per_s is not None and measured.figures(a, b) is None:
            link = link_spec(job, a, b, measured)
            figures = {"bytes_per_s": link.bytes_per_s, "rtt_s": 2 * link.latency_s, "origin": SAID}
            rows += [{"source": one, "target": other, **figures} for one, other in ((a, b), (b, a))]
    return rows


def _unit_table(found: Profile) -> Table:
    columns = "forward", "backward", "inputs", "weights", "selective", "full"
    table = _table("units, ms of a sequence", ("pool", "unit"), ("tp", "batch", *columns, "spread", "times"))
    for row in found.units():
        sizes = str(row["tp"]), str(row.get("micro_batch", 1))
        seconds = (_ms(row.get(name)) for name in _SECONDS)
        table.add_row(row["pool"], row["kind"], *sizes, *seconds, _percent(row), str(row.get("repeats", 1)))
    return table


def _rate_table(rows: Sequence[Row]) -> Table:
    table = _table("rates", ("pool", "what", "shape", "origin"), ("tp", "rate", "least ms", "spread"))
    for row in rows:
        name, unit = _UNITS.get(row["part"], _BYTES)
        shape = " x ".join(map(str, row["shape"]))
        rate, least = f"{row['per_s'] / unit:,.4g} {name}", _ms(row.get("latency_s") or None)
        table.add_row(row["pool"], row["part"], shape, row["origin"], str(row["tp"]), rate, least, _percent(row))
    return table


def _link_table(rows: Sequence[Row]) -> Table:
    table = _table("links", ("from", "to", "origin"), ("Gbit/s", "round trip ms", "CPU s/GB", "streams"))
    for row in rows:
        rate, cost = f"{row['bytes_per_s'] * 8e-9:.4g}", row.get("cpu_s_per_gb")
        rest = _ms(row["rtt_s"]), "" if cost is None else f"{cost:.2f}", str(row.get("streams", ""))
        table.add_row(row["source"], row["target"], row["origin"], rate, *rest)
    return table


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in words:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.4g}"


def _percent(row: Mapping[str, Any]) -> str:
    return f"{row['spread']:.1%}" if "spread" in row else ""
