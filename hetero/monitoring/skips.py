"""Updates that are skipped in a row. A run whose gradients are no numbers any more goes through its steps to no end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hetero.monitoring.notice import Notice
from hetero.monitoring.record import UNSCALED

FEW = 3
"""A single skipped update harms nobody, and a run may begin with some."""


@dataclass
class Skips:
    """`count` rises with each step that was no update, as far as `FEW`, and falls with each that was one. At `FEW` a
    row begins, at 0 it is over: one lucky update in between does not end it.

    A step whose loss is no number counts as skipped, whatever became of its gradients. One that was skipped since the
    loss scale was too large counts only where there is no smaller one.
    """

    count: int = 0
    in_row: bool = False

    def record(self, line: Mapping[str, Any], last_good: Callable[[], str | None]) -> list[Notice]:
        """Takes a line of `metrics.jsonl`; `updates_skipped` when a row begins, `updates_recovered` when it is over.

        `last_good` is asked for the checkpoint to go back to."""
        was_in_row = self.in_row
        self.count = min(self.count + 1, FEW) if _is_lost(line) else max(self.count - 1, 0)
        self.in_row = self.count == FEW or (self.in_row and self.count > 0)
        if self.in_row == was_in_row:
            return []
        when = {"step": line["step"], "epoch": line["epoch"]}
        if self.in_row:
            return [Notice("updates_skipped", {"last_good": last_good() or "no checkpoint"}, **when)]
        return [Notice("updates_recovered", **when)]


def _is_lost(line: Mapping[str, Any]) -> bool:
    loss = line["loss"]
    return (line["skipped"] and line["loss_scale"] <= UNSCALED) or (loss is not None and not math.isfinite(loss))
