"""What only several sections of a job together can break. Each check raises one JobError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from backends.chip import ChipSpec, load_chip
from backends.identify import AUTO, sheets_of
from backends.registry import family_names
from balancer.completion.legality import MOST_MICRO_BATCHES
from bridge.codec import NONE
from bridge.options import BridgeOptions
from bridge.precision import crossing
from hetero.checkpoint.options import CheckpointOptions
from hetero.cluster.options import PoolOptions
from hetero.data.kind import packs
from hetero.data.options import DataOptions
from hetero.errors import did_you_mean, explains_itself
from hetero.job.errors import JobError
from hetero.masking import MASK, first_masked
from hetero.models.description import ModelDescription
from hetero.models.options import ModelOptions
from hetero.models.registry import architecture
from hetero.models.tuning import EVERYTHING, Tuning
from hetero.monitoring.options import MonitorOptions
from hetero.monitoring.tracker import tracker_names
from hetero.words.options import TrainOptions

Pools = Mapping[str, PoolOptions]

FLOAT8, BFLOAT16 = "fp8", "bfloat16"
"""The codec whose values are such."""
MOST_CHIPS, MOST_TP = 10**6, 128
"""More would keep the balancer busy for minutes."""
_NO_NAME = re.compile(r"[^\w-]|^$")
LONGEST_NAME = 63
"""Bytes of a pool's name, which is part of the names of files, processes and actors."""


def check_name(key: str, name: str) -> None:
    """Pools give their names to processes, files and keys."""
    if _NO_NAME.search(name):
        rule = "a pool's name has letters, digits, _ and - only"
        raise JobError(key, name, rule, "rename it, such as " + (_NO_NAME.sub("-", name).strip("-") or "a"))
    if (size := len(name.encode())) > LONGEST_NAME:
        rule = f"a pool's name has at most {LONGEST_NAME} bytes, as UTF-8; this one has {size}"
        raise JobError(key, name, rule, "give it a short name")


def check_sizes(pools: Pools, train: TrainOptions) -> None:
    """What no search for a plan would survive."""
    for name, pool in pools.items():
        if pool.count > MOST_CHIPS:
            raise JobError(f"pools.{name}.count", pool.count, f"must be at most {MOST_CHIPS}", "use fewer chips")
    if train.global_batch // train.micro_batch > MOST_MICRO_BATCHES:
        rule = f"is more than {MOST_MICRO_BATCHES} micro-batches of {train.micro_batch} in a step"
        raise JobError("train.global_batch", train.global_batch, rule, "lower it, or raise train.micro_batch")


def check_pool(name: str, pool: PoolOptions, precision: str) -> None:
    """A known family, a chip of it, a tp that a host can hold, a precision of that chip; networks of hosts that are
    there. `precision` is the job's."""
    key = f"pools.{name}"
    check_name(key, name)
    _check_networks(key, pool)
    if pool.family not in family_names():
        remedy = did_you_mean(pool.family, family_names())
        raise JobError(f"{key}.family", pool.family, "must be a known chip family", remedy)
    if pool.chip == AUTO:
        _check_can_say(key, pool)
        _check_tp(pool, key)
        return
    chip = _chip(pool, key)
    if chip.family != pool.family:
        rule = f"is a chip of family {chip.family!r}, but the pool's family is {pool.family!r}"
        raise JobError(f"{key}.chip", pool.chip, rule, f"set {key}.family to {chip.family}, or name another chip")
    _check_tp(pool, key)
    _check_precision(key, pool, chip, precision)


def _check_networks(key: str, pool: PoolOptions) -> None:
    """A plan would reckon with what no emulated host is held to."""
    for name in ("network_gbit_per_s", "fabric_gbit_per_s"):
        said = getattr(pool, name)
        if said is not None and pool.emulate is not None:
            rule = "is of real hosts: emulated ones are all this machine, and their links are paced each by itself"
            raise JobError(f"{key}.{name}", said, rule, "leave it out, and give bridge.links their gbit_per_s")


def _check_can_say(key: str, pool: PoolOptions) -> None:
    """The rest is checked once the chips have said what they are."""
    if pool.emulate is not None:
        names = ", ".join(sheet.name for sheet in sheets_of(pool.family))
        rule = "a chip that is emulated cannot say what it is"
        raise JobError(f"{key}.chip", AUTO, rule, f"name the one that it stands for: {names}")


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


def _check_precision(key: str, pool: PoolOptions, chip: ChipSpec, precision: str) -> None:
    """A chip computes, and is paced as one that computes, in what its datasheet has a figure for."""
    own = f"{key}.precision"
    asked = [(own if pool.precision else "train.precision", own, pool.precision or precision)]
    if pool.emulate is not None and pool.emulate.precision is not None:
        asked.append((f"{key}.emulate.precision", f"{key}.emulate.precision", pool.emulate.precision))
    for where, remedied, wanted in asked:
        if wanted not in chip.peak_flops:
            rule = f"{chip.name} has only {', '.join(chip.peak_flops)}"
            raise JobError(where, wanted, rule, f"set {remedied} to {min(chip.peak_flops)}")


def check_links(bridge: BridgeOptions, pools: Pools, precision: str) -> None:
    """Links lie between pools that there are, and are packed as the chips of both can."""
    for index, link in enumerate(bridge.links):
        key = f"bridge.links[{index}].between"
        for end in link.between:
            if end not in pools:
                raise JobError(key, end, "must name pools of this job", did_you_mean(end, pools))
    for ends in combinations(pools, 2):
        travels = crossing(*(pools[end].precision or precision for end in ends))
        for end in ends:
            if pools[end].chip != AUTO:
                _check_codec(bridge, ends, end, load_chip(pools[end].chip), travels)


def _check_codec(bridge: BridgeOptions, ends: tuple[str, str], end: str, chip: ChipSpec, travels: str) -> None:
    """Values are packed on the chips themselves, by the coarser of the link's two codecs or by a safer one.

    travels  the precision of what crosses; what is narrow already is never packed in bfloat16
    """
    codec = bridge.codec_between(*ends).activation  # gradients are never coarser
    own = [index for index, link in enumerate(bridge.links) if set(link.between) == set(ends) and link.codec]
    key = f"bridge.links[{own[0]}].codec.activation" if own else "bridge.codec.activation"
    between = f"for the link between {' and '.join(ends)}"
    if codec != NONE.name and travels == "float32" and BFLOAT16 not in chip.peak_flops:
        also = "" if codec == "bf16" else ", which takes over where another codec errs too much"
        rule = f"the chips of pool {end} ({chip.name}) have no bfloat16{also}"
        raise JobError(key, codec, rule, f"set none {between}")
    if codec == FLOAT8 and not chip.float8:
        rule = f"the chips of pool {end} ({chip.name}) have no float8"
        raise JobError(key, codec, rule, f"set int8 or bf16 {between}")


def check_shadow(train: TrainOptions, pools: Pools) -> None:
    """A pool of the job computes again what others do."""
    if train.shadow is None:
        return
    if train.shadow.pool not in pools:
        remedy = did_you_mean(train.shadow.pool, pools)
        raise JobError("train.shadow.pool", train.shadow.pool, "must name a pool of this job", remedy)
    if len(pools) == 1:
        rule = "computes again what other pools do, and the job has no other"
        raise JobError("train.shadow.pool", train.shadow.pool, rule, "leave train.shadow out, or add a pool")


def check_time_scale(time_scale: float | str, emulated: bool) -> None:
    """Real chips cannot be slowed."""
    if isinstance(time_scale, str):
        return
    if time_scale <= 0:
        raise JobError("time_scale", time_scale, "must be greater than 0", "set it to auto")
    if not emulated:
        raise JobError("time_scale", time_scale, "slows emulated pools only, and none is", "remove it")


def check_model(model: ModelOptions, data: DataOptions, pools: Pools, tuning: Tuning = EVERYTHING) -> None:
    """The model is a known one, has what the job freezes and adapts, and room for every symbol and position of the
    text, and can be cut as the pools ask."""
    try:
        described = model.resolve()
        told = architecture(described, tuning)
    except Exception as error:
        if not explains_itself(error):
            raise
        key = str(error.key)  # type: ignore[attr-defined]
        raise JobError.at(key if key.startswith(("model", "train")) else f"model.{key}", error) from None
    check_text(described, data)
    if model.hf is not None and model.weights is None and told.unlike is not None:
        rule = f"{told.unlike} does not begin at random, and how it does is not known here"
        raise JobError("model.init", "random", rule, "let transformers write a directory, and begin with its weights")
    for name, pool in pools.items():
        if pool.tp != "auto" and (reason := told.legal_tp(pool.tp)):
            legal = [str(tp) for tp in range(1, min(pool.count, MOST_TP) + 1) if told.legal_tp(tp) is None]
            raise JobError(f"pools.{name}.tp", pool.tp, reason, f"set it to {' or '.join(legal)}, or to auto")


def check_text(model: ModelDescription, data: DataOptions) -> None:
    """The model has room for every symbol and position of the text, and takes samples as they are made."""
    told = architecture(model)
    if data.vocab is not None and model.vocab < data.vocab:
        rule = f"must have room for the {data.vocab} symbols of the {data.tokenizer!r} tokenizer"
        raise JobError("model", f"vocab {model.vocab}", rule, f"choose a vocab of at least {data.vocab}")
    if told.longest is not None and data.seq_len > told.longest:
        rule = f"the model has learnt {told.longest} positions"
        raise JobError("data.seq_len", data.seq_len, rule, f"use {told.longest} or less")
    if told.alone is not None and packs(data):
        raise JobError("data.pack", True, told.alone, "set it to false")


def check_format(checkpoint: CheckpointOptions, tuning: Tuning) -> None:
    """What a model's directory can hold, and where it can be written."""
    if checkpoint.format != "hf":
        return
    remedy = "leave it out, and write a directory with hetero checkpoint export"
    if tuning.lora is not None:
        rule = "adapters are trained, which no model's own directory has a place for"
        raise JobError("checkpoint.format", checkpoint.format, rule, remedy)
    if checkpoint.in_store:
        rule = "its files are written by several owners at once, which a store cannot take"
        raise JobError("checkpoint.format", checkpoint.format, rule, remedy)


def check_trackers(monitor: MonitorOptions) -> None:
    """Known ones; whether their packages are there, and take the options, is seen when they are used."""
    for index, tracker in enumerate(monitor.trackers):
        if tracker.name not in tracker_names():
            remedy = did_you_mean(tracker.name, tracker_names())
            raise JobError(f"monitor.trackers[{index}]", tracker.name, "must be a known tracker", remedy)


def check_told(job: Mapping[str, Any]) -> None:
    """The job as plain data has all its values, as one that was recorded may not."""
    if (key := first_masked(job)) is not None:
        remedy = f"give it with --set {key}=VALUE, or use the job file that you wrote"
        raise JobError(key, MASK, "is a value that was not recorded, and no run starts without it", remedy)
