"""Weights & Biases: offline by default, in `RUN_DIR/wandb`; `wandb sync` uploads it later."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Literal

import wandb
from pydantic import field_validator
from pydantic_core import PydanticCustomError
from requests.utils import get_netrc_auth

from hetero.monitoring.tracked import TrackedRun
from hetero.monitoring.tracker import Tracker, TrackerOptions

_REPORTS = "WANDB_ERROR_REPORTING"
_NOT_IN_NAMES = re.compile(r"[/\\#?%:]")


class WandbOptions(TrackerOptions):
    """`project` is the job's name by default; `online` needs `wandb login` or WANDB_API_KEY."""

    mode: Literal["offline", "online"] = "offline"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()

    @field_validator("mode")
    @classmethod
    def _has_a_key(cls, mode: str) -> str:
        """W&B itself would ask for it at the terminal."""
        if mode == "online" and not _key_is_known():
            remedy = "set WANDB_API_KEY, or run `wandb login` first; mode: offline needs neither"
            raise PydanticCustomError("no_key", "needs an API key of W&B, and none is set", {"remedy": remedy})
        return mode


class WandbTracker(Tracker):
    """Metrics and the job alone: no console output, code, arguments, packages or system statistics are taken along."""

    Options = WandbOptions

    def __init__(self, run: TrackedRun, options: WandbOptions) -> None:
        if options.mode == "offline":
            os.environ.setdefault(_REPORTS, "false")  # of W&B's own faults, which it sends to its makers all the same
        self._run = wandb.init(
            dir=str(run.folder),
            name=run.name,
            config=dict(run.job),
            settings=wandb.Settings(
                console="off", silent=True, disable_code=True, disable_git=True, x_disable_meta=True,
                x_disable_stats=True, x_save_requirements=False,
            ),
            reinit="create_new",
            **options.model_dump() | {"project": options.project or _NOT_IN_NAMES.sub("-", run.project)},
        )  # fmt: skip

    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        self._run.log({**curves, "time": time}, step=step)

    def close(self) -> None:
        self._run.finish()


def _key_is_known() -> bool:
    """In the places where W&B looks for it."""
    settings = wandb.setup().settings
    token = os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    return bool(settings.api_key or token or get_netrc_auth(settings.base_url))
