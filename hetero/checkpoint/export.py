"""A checkpoint as a directory of Hugging Face: every tensor of the model, or nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import torch

from hetero.checkpoint.adapters import merged, read_whole, write_adapter
from hetero.checkpoint.durable import remove_tree
from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.pieces import CheckpointReader
from hetero.checkpoint.resume import ResumePoint
from hetero.huggingface.folder import CONFIG
from hetero.huggingface.shards import write_shards
from hetero.models.adapter import is_adapter
from hetero.models.hf_model import HfModel
from hetero.models.megatron_names import megatron_map
from hetero.models.registry import weights
from hetero.models.tuning import LoraOptions
from hetero.models.weight_map import WeightMap

PICKLED = "pytorch_model.bin"
_MOST_KEPT = 3
"""Logical tensors in memory beside a shard: of stacked ones, each gives a part to many."""
_MOST_NAMED = 3


def export(
    point: ResumePoint,
    model: HfModel,
    beside: Sequence[Path],
    target: Path,
    layout: str,
    dtype: str | None,
    merge: LoraOptions | None = None,
) -> None:
    """Writes what transformers loads as `model`, with the files `beside`, to `target`, which is whole or not there.
    `merge` folds adapters that were trained so into the weights.

    As `layout` "hf" there are safetensors, and a shard and a few tensors in memory at a time; as "torch" one pickled
    state dict, and all of them; as "megatron" a distributed checkpoint of Megatron-Core, and a few tensors. `dtype`
    None is that of the model's own configuration, or float32. Raises CheckpointError where there is a target, or the
    checkpoint is of another model or not as it was written, ModelError for one that Megatron does not know."""
    told = HfLayout(model, dtype)
    found, rounded = megatron_map(model) if layout == "megatron" else told.map, getattr(torch, told.dtype)
    with _unfinished(target) as folder, _verified(point) as reader:
        _check_same(reader, found, point, merge)
        get = _tensors(reader, found, merge)
        for path in beside:
            shutil.copyfile(path, folder / path.name)
        (folder / CONFIG).write_text(json.dumps(told.config, indent=2) + "\n", encoding="utf-8")
        if layout == "hf":
            write_shards(folder, found.foreign, rounded, get)
        elif layout == "megatron":
            from hetero.checkpoint.megatron import write_megatron  # what it stands on takes a second to import

            write_megatron(folder, point.step, found.foreign, rounded, get)
        else:
            torch.save({name: get(name).to(rounded) for name in found.foreign}, folder / PICKLED)


def export_adapter(point: ResumePoint, model: HfModel, target: Path, lora: LoraOptions, base: str | None) -> None:
    """Writes the adapters alone, as PEFT loads them beside the model `base`. Raises CheckpointError as `export` does,
    where there are none, and for what else has been trained."""
    found = weights(model)
    with _unfinished(target) as folder, _verified(point) as reader:
        _check_same(reader, found, point, lora)
        write_adapter(folder, reader, found, lora, base)


def _verified(point: ResumePoint) -> CheckpointReader:
    """Of a checkpoint every byte of which is as it was written."""
    point.store.verify(point.step)
    return CheckpointReader(point.store, point.step)


def _tensors(reader: CheckpointReader, found: WeightMap, merge: LoraOptions | None) -> Callable[[str], torch.Tensor]:
    plain = lru_cache(_MOST_KEPT)(partial(read_whole, reader))
    logical = plain if merge is None else lru_cache(_MOST_KEPT)(partial(merged, reader, merge))
    return lambda name: found.write(name, logical)


def _check_same(reader: CheckpointReader, found: WeightMap, point: ResumePoint, lora: LoraOptions | None) -> None:
    """Both have the same logical tensors, of the same shapes, and the checkpoint adapters if they are asked for."""
    wanted = {logical for name in found.foreign for logical in found.logical_of(name)}
    adapters = {name for name in reader.names() if is_adapter(name)}
    if bool(adapters) != (lora is not None):
        rule, remedy = "it has adapters beside the model's tensors", "fold them in with --merge, or give --adapter"
        if lora is not None:
            rule, remedy = "it has no adapters", "export it without --merge and --adapter"
        raise CheckpointError("RUN_DIR[@STEP]", str(point), rule, remedy)
    faults = [
        f"{word}: {', '.join(sorted(names)[:_MOST_NAMED])}" + (", ..." if len(names) > _MOST_NAMED else "")
        for word, names in (("missing", wanted - reader.names()), ("of no use", reader.names() - wanted - adapters))
        if names
    ]
    shapes = [(name, tuple(reader.shape(name)), tuple(found.shape(name))) for name in sorted(wanted & reader.names())]
    faults += [f"{name} has the shape {shape}, the model {told}" for name, shape, told in shapes if shape != told]
    if faults:
        rule = "; ".join(["its tensors are not those of the model", *faults[:_MOST_NAMED]])
        remedy = "export from the run directory that saved it"
        raise CheckpointError("RUN_DIR[@STEP]", str(point), rule, remedy)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name at the end, or goes."""
    if os.path.lexists(target):
        raise CheckpointError("DIR", str(target), "it is there already, and nothing is overwritten", "name another one")
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError("DIR", str(target), f"cannot be made ({error.strerror})", "name another one") from error
    try:
        yield folder
        folder.rename(target)
    except BaseException:
        remove_tree(folder)
        raise
