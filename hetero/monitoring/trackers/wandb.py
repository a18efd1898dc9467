"""Weights & Biases: offline by default, in `RUN_DIR/wandb`; `wandb sync` uploads it later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import wandb

from hetero.monitoring.tracked import TrackedRun
from hetero.monitoring.tracker import Tracker, TrackerOptions

_NOT_IN_NAMES = re.compile(r"[/\\#?%:]")


class WandbOptions(TrackerOptions):
    """`project` is the job's name by default; `online` needs `wandb login` or WANDB_API_KEY."""

    mode: Literal["offline", "online"] = "offline"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


class WandbTracker(Tracker):
    """Metrics alone: no console output, code or system statistics are taken along."""

    Options = WandbOptions

    def __init__(self, run: TrackedRun, options: WandbOptions) -> None:
        self._run = wandb.init(
            dir=str(run.folder),
            name=run.name,
            config=dict(run.job),
            settings=wandb.Settings(
                console="off", silent=True, disable_code=True, disable_git=True, x_disable_stats=True,
            ),
            reinit="create_new",
            **options.model_dump() | {"project": options.project or _NOT_IN_NAMES.sub("-", run.project)},
        )  # fmt: skip

    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        self._run.log({**curves, "time": time}, step=step)

    def close(self) -> None:
        self._run.finish()
