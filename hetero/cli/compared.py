"""Two plans beside each other."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from backends.sizes import size_text
from hetero.job.planning.comparison import plan_facts

if TYPE_CHECKING:
    from hetero.job.planning.comparison import PlanComparison


def as_data(found: PlanComparison) -> str:
    """One JSON object."""
    data = {
        "first": plan_facts(found.first),
        "second": plan_facts(found.second),
        "second_is_faster_by": found.faster,
        "differences": [asdict(one) for one in found.differences()],
    }
    return json.dumps(data, indent=2)


def print_comparison(found: PlanComparison, names: tuple[str, str], console: Console | None = None) -> None:
    """`names` are what a person calls them."""
    console = console or Console()
    differences = found.differences()
    if not differences:
        console.print("the plans ask the same of the chips")
        return
    table = _table("what they ask", names)
    for one in differences:
        table.add_row(one.key, _told(one.first), _told(one.second))
    console.print(table)
    first, second = plan_facts(found.first), plan_facts(found.second)
    table = _table("what is expected", names)
    for key in dict.fromkeys([*first, *second]):
        table.add_row(key, _figure(key, first.get(key)), _figure(key, second.get(key)))
    console.print(table)
    slower, faster = sorted((found.first, found.second), key=lambda one: -one.prediction.step_s)
    name = names[faster is found.second]
    part = 1 - faster.prediction.step_s / slower.prediction.step_s
    said = f"{name} is faster: its step is {part:.1%} shorter" if part > 0.0005 else "they are equally fast"
    console.print(said, soft_wrap=True, markup=False, highlight=False)


def _table(title: str, names: tuple[str, str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _told(value: Any) -> str:
    return "-" if value is None else str(value)


def _figure(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if "bytes" in key:
        return size_text(value)
    return f"{value:,.0f}" if key == "tokens_per_s" else f"{value:.4g}"
