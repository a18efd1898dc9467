"""What a command hears before there is a run."""

from __future__ import annotations

from typing import Any

import typer


def heard(event: dict[str, Any]) -> None:
    """That it waits for places, and that it has them."""
    from hetero.monitoring.progress import event_text

    typer.echo(event_text(event), err=True)
