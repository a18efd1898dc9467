"""What a tracker is, and which there are: one file and one line here, or one entry point. Torch-free.

A tracker takes the curves of a run to a tool that people look at already. It lives in a thread of its own (`feed.py`),
so it may block, and what it raises is reported and passed over.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict

from hetero.errors import did_you_mean
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.tracked import TrackedRun

ENTRY_POINT_GROUP = "hetero.trackers"

BUILT_IN = {
    "tensorboard": "hetero.monitoring.trackers.tensorboard:TensorBoardTracker",
    "wandb": "hetero.monitoring.trackers.wandb:WandbTracker",
    "mlflow": "hetero.monitoring.trackers.mlflow:MlflowTracker",
}

_NO_CURVES = {"step", "time", "epoch", "emulated"}
# What an emulated chip decides; loss and gradients are real arithmetic.
_MODELLED = {"step_s", "tokens_per_s", "goodput", "overrun", "link_ratio"}


class TrackerOptions(BaseModel):
    """Base of the `options` that a tracker takes in the job file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tracker(ABC):
    """The curves of one run in one tool. Made, used and closed in one thread."""

    Options: ClassVar[type[TrackerOptions]] = TrackerOptions

    @abstractmethod
    def __init__(self, run: TrackedRun, options: Any) -> None:
        """Opens the run in the tool. `options` is an instance of the class's `Options`."""

    @abstractmethod
    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        """One step: unix seconds, and finite values by name. A name may be missing in some steps."""

    @abstractmethod
    def close(self) -> None:
        """Writes out all that was logged and ends the run in the tool."""


def curves(record: Mapping[str, Any], run: TrackedRun) -> dict[str, float]:
    """The numbers of one line of `metrics.jsonl`, by name: `loss`, `pools/nvidia/mfu`, `stages/0.1/wait_s`.

    What emulated chips decide is named `emulated/...`, so it never shares a curve with real figures.
    """
    return {name: float(value) for name, value in _named(record, run) if _is_finite(value)}


def tracker_names() -> tuple[str, ...]:
    """Every tracker that is installed, without importing any."""
    return tuple(sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))}))


def load_tracker(name: str, key: str = "monitor.trackers") -> type[Tracker]:
    """Imports a tracker and the package behind it. MonitorError, at `key`, if either is not there."""
    _have_a_home()
    try:
        return _target(name, key)()
    except ImportError as error:
        remedy = f"pip install 'hetero[{name}]'" if name in BUILT_IN else "install what it needs"
        raise MonitorError(key, name, f"needs a package that cannot be imported ({error})", remedy) from None


def _have_a_home() -> None:
    """Tools ask for the home as they are imported, and fail where none is known; they can do without files in it."""
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = os.devnull


def _target(name: str, key: str) -> Callable[[], type[Tracker]]:
    if name in BUILT_IN:
        return lambda: _import(BUILT_IN[name])
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return entry.load
    raise MonitorError(key, name, "must be a known tracker", did_you_mean(name, tracker_names()))


def _import(target: str) -> type[Tracker]:
    module, _, name = target.partition(":")
    return cast("type[Tracker]", getattr(import_module(module), name))


def _named(record: Mapping[str, Any], run: TrackedRun) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if key not in _NO_CURVES:
            yield _prefix(key in _MODELLED and bool(record.get("emulated"))) + key, value
    for name, pool in record.get("pools", {}).items():
        for key, value in pool.items():
            yield f"{_prefix(_is_emulated(run, name))}pools/{name}/{key}", value
    for link in record.get("links", ()):
        ends = link["source"], link["target"]
        prefix = _prefix(any(_is_emulated(run, end) for end in ends))
        for key, value in link.items():
            if key not in ("source", "target"):
                yield f"{prefix}links/{'-to-'.join(ends)}/{key}", value
    for stage in record.get("stages", ()):
        group = f"{_prefix(_is_emulated(run, stage['pool']))}stages/{stage['pipeline']}.{stage['stage']}"
        for key, value in stage.items():
            if key not in ("pipeline", "stage"):
                yield f"{group}/{key}", value

    if shadow := record.get("shadow"):
        prefix = _prefix(any(_is_emulated(run, shadow[one]) for one in ("pool", "by")))
        group = f"{prefix}shadow/{shadow['pipeline']}.{shadow['stage']}"
        for key in ("value", "gradient"):
            yield f"{group}/{key}", shadow.get(key)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and math.isfinite(value)


def _is_emulated(run: TrackedRun, pool: str) -> bool:
    return pool in run.pools and run.pools[pool].emulated


def _prefix(emulated: bool) -> str:
    return "emulated/" if emulated else ""
