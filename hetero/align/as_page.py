"""A comparison as one page that holds all it shows, in the style of a run's report."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hetero.align.alignment import Alignment
from hetero.align.as_table import NORM, reference, verdict
from hetero.monitoring.report.page import style
from hetero.terminal import plain


def page(found: Alignment) -> str:
    """The whole page; nothing is loaded from elsewhere."""
    environment = Environment(
        loader=PackageLoader("hetero", "align"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_printable,
    )
    environment.filters["error"] = lambda value: f"{value:.1e}"
    template = environment.get_template("align.html.jinja")
    told = {"verdict": verdict(found), "reference": reference(found), "norm": NORM}
    return template.render(found=found, faults=found.faults, style=Markup(style()), **told)


def _printable(value: Any) -> Any:
    return plain(value) if type(value) is str else value
