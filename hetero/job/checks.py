"""What only several sections of a job together can break. Each check raises one JobError."""

from __future__ import annotations

from collections.abc import Mapping

from backends.chip import ChipSpec, load_chip
from backends.registry import family_names
from bridge.options import BridgeOptions
from hetero.cluster.options import PoolOptions
from hetero.data.options import DataOptions
from hetero.errors import did_you_mean, explains_itself
from hetero.job.errors import JobError
from hetero.models.options import ModelOptions
from hetero.monitoring.options import MonitorOptions
from hetero.monitoring.tracker import tracker_names

Pools = Mapping[str, PoolOptions]


def check_pool(name: str, pool: PoolOptions, precision: str) -> None:
    """A known family, a chip of it, a tp that a host can hold. `precision` is what the pool's speed is asked for in."""
    key = f"pools.{name}"
    if pool.family not in family_names():
        remedy = did_you_mean(pool.family, family_names())
        raise JobError(f"{key}.family", pool.family, "must be a known chip family", remedy)
    chip = _chip(pool, key)
    if chip.family != pool.family:
        rule = f"is a chip of family {chip.family!r}, but the pool's family is {pool.family!r}"
        raise JobError(f"{key}.chip", pool.chip, rule, f"set {key}.family to {chip.family}, or name another chip")
    _check_tp(pool, key)
    try:
        chip.flops_per_s(precision)
    except Exception as error:
        if not explains_itself(error):
            raise
        own = pool.emulate is not None and pool.emulate.precision is not None
        raise JobError.at(f"{key}.emulate.precision" if own else "train.precision", error) from None


def _chip(pool: PoolOptions, key: str) -> ChipSpec:
    try:
        return load_chip(pool.chip)
    except Exception as error:
        if not explains_itself(error):
            raise
        raise JobError.at(f"{key}.chip", error) from None


def _check_tp(pool: PoolOptions, key: str) -> None:
    if pool.tp == "auto":
        return
    per_host = min(pool.count, pool.chips_per_host or pool.count)
    if pool.tp > per_host:
        rule = f"a tensor-parallel group must fit into one host, and the pool has {per_host} chips on a host"
        raise JobError(f"{key}.tp", pool.tp, rule, f"set {key}.tp to at most {per_host}")


def check_links(bridge: BridgeOptions, pools: Pools) -> None:
    """Links lie between pools that there are."""
    for index, link in enumerate(bridge.links):
        key = f"bridge.links[{index}].between"
        for end in link.between:
            if end not in pools:
                raise JobError(key, end, "must name pools of this job", did_you_mean(end, pools))


def check_time_scale(time_scale: float | str, emulated: bool) -> None:
    """Real chips cannot be slowed."""
    if isinstance(time_scale, str):
        return
    if time_scale <= 0:
        raise JobError("time_scale", time_scale, "must be greater than 0", "set it to auto")
    if not emulated:
        raise JobError("time_scale", time_scale, "slows emulated pools only, and none is", "remove it")


def check_model(model: ModelOptions, data: DataOptions) -> None:
    """The model is a known one and has room for every symbol of the text."""
    try:
        dimensions = model.resolve()
    except Exception as error:
        if not explains_itself(error):
            raise
        key = str(error.key)  # type: ignore[attr-defined]
        raise JobError.at(key if key.startswith("model") else f"model.{key}", error) from None
    if dimensions.vocab < data.vocab:
        rule = f"must have room for the {data.vocab} symbols of the {data.tokenizer!r} tokenizer"
        raise JobError("model", f"vocab {dimensions.vocab}", rule, f"choose a vocab of at least {data.vocab}")


def check_trackers(monitor: MonitorOptions) -> None:
    """Known ones; whether their packages are there, and take the options, is seen when they are used."""
    for index, tracker in enumerate(monitor.trackers):
        if tracker.name not in tracker_names():
            remedy = did_you_mean(tracker.name, tracker_names())
            raise JobError(f"monitor.trackers[{index}]", tracker.name, "must be a known tracker", remedy)
