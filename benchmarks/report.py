"""How every benchmark ends: a table for people, and as the last line one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping


def print_report(
    name: str, figures: Mapping[str, float], *, emulated: bool, void: str | None = None, quiet: bool = False
) -> None:
    """`void` is the reason why the figures must not be used, `quiet` leaves the table out."""
    if not quiet:
        print(f"{name}{' (emulated chips)' if emulated else ''}{f': VOID, {void}' if void else ''}")
        for key, value in figures.items():
            print(f"  {key:<34} {value:>12,.4g}")
    print(json.dumps({"benchmark": name, "figures": dict(figures), "emulated": emulated, "void": void}))
