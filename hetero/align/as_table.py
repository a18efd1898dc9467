"""A comparison as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from hetero.align.alignment import Alignment, Errors

NORM = "|ours - reference| / |reference|, Euclidean over all elements"
COLUMNS = ("value", "gradient", "tensors", "value\nalone", "gradient\nalone", "tensors\nalone")


def table(found: Alignment) -> Table:
    """A row for each unit; what is beyond its tolerance is red."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, caption_justify="left")
    made.caption = f"{NORM}. Alone: given what the reference's unit was given."
    made.add_column("unit", overflow="fold")
    for column in COLUMNS:
        made.add_column(column, justify="right")
    for unit in found.units:
        limits = found.tolerance
        cells = [*_cells(unit.whole, limits.whole), *_cells(unit.alone, limits.alone)]
        made.add_row(f"{unit.number} {unit.kind}", *cells)
    return made


def operators(found: Alignment, number: int) -> Table:
    """Of one unit that fails alone."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    made.add_column(f"operator of unit {number}")
    made.add_column("value\nalone", justify="right")
    for name, error in found.units[number].operators.items():
        made.add_row(name, _cell(error, found.tolerance.alone))
    return made


def verdict(found: Alignment) -> str:
    """In a line: aligned, or the first fault."""
    if faults := found.faults:
        return f"differs first in {faults[0]}"
    return f"aligned: {found.model} and {reference(found)}, {len(found.units)} units in {found.dtype}"


def reference(found: Alignment) -> str:
    """What a person called it, and whether its ranks are emulated."""
    return f"{found.reference} on emulated chips" if found.emulated else found.reference


def _cells(errors: Errors, limit: float) -> list[Text]:
    tensors = max(errors.tensors.values(), default=0.0)
    return [_cell(error, limit) for error in (errors.value, errors.gradient, tensors)]


def _cell(error: float, limit: float) -> Text:
    return Text(f"{error:.1e}", "bold red" if error > limit else "")
