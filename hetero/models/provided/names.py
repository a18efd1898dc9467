"""Where a directory has a model's tensors: transformers' own conversion, seen through.

What is converted are numbers in the tensors' place, each another one, so that where they end up tells which elements
lie where. Large dimensions but the first are made small for it, where every conversion cuts them by a fraction of what
they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from bridge.layout.layout import Region
from hetero.models.hf_model import config_error
from hetero.models.provided.told import ToldBlock, ToldTensor

MOST_ELEMENTS = 1 << 22
SMALL = 4


@dataclass(frozen=True)
class StoredBox:
    """The box `here` of a parameter is the box `there` of a directory's tensor."""

    foreign: str
    here: Region
    there: Region
    dims: tuple[int, ...]


def places(causal: Any, small: bool | None = None) -> tuple[dict[str, list[StoredBox]], dict[str, str]]:
    """By the name in the model's state; and the directory's names that stand for others."""
    from transformers.core_model_loading import revert_weight_conversion

    state: dict[str, torch.Tensor] = causal.state_dict(keep_vars=True)
    if small is None:
        small = sum(tensor.numel() for tensor in state.values()) > MOST_ELEMENTS
    own: dict[int, str] = {}
    for name, tensor in state.items():
        own.setdefault(id(tensor), name)
    shapes = {name: _small(tensor.shape) if small else tuple(tensor.shape) for name, tensor in state.items()}
    begins, numbered, at = dict[str, int](), dict[str, torch.Tensor](), 0
    for name, tensor in state.items():
        if own[id(tensor)] != name:
            continue
        count = prod(shapes[name])
        begins[name], numbered[name] = at, torch.arange(at, at + count).view(shapes[name])
        at += count
    there = revert_weight_conversion(causal, dict(numbered))
    whole = revert_weight_conversion(causal, {name: numbered[own[id(tensor)]] for name, tensor in state.items()})
    found: dict[str, list[StoredBox]] = {name: [] for name in numbered}
    scales = {name: tuple(a // b for a, b in zip(state[name].shape, shapes[name], strict=True)) for name in numbered}
    bounds = sorted((begin, name) for name, begin in begins.items())
    for foreign, values in there.items():
        for name, place in _of_foreign(foreign, values, bounds, shapes, scales):
            found[name].append(place)
    firsts = {int(values.flatten()[0]): foreign for foreign, values in there.items()}
    ties = {foreign: firsts[int(values.flatten()[0])] for foreign, values in whole.items() if foreign not in there}
    return found, ties


def told_blocks(
    tensors: Sequence[ToldTensor], state: Mapping[str, list[StoredBox]], prefix: str
) -> tuple[ToldBlock, ...]:
    """Of a unit whose parameters have names that begin so."""
    parts = (_of_part(tensor, place) for tensor in tensors for place in state[prefix + tensor.parameter])
    return tuple(_gathered([block for block in parts if block is not None]))


def _of_part(tensor: ToldTensor, place: StoredBox) -> ToldBlock | None:
    here, there = list(place.here), list(place.there)
    if tensor.part is not None:
        extent, axis = tensor.shape[tensor.axis], tensor.axis
        first, last = tensor.part * extent, (tensor.part + 1) * extent
        start, stop = max(here[axis][0], first), min(here[axis][1], last)
        if start >= stop:
            return None
        if axis in place.dims:
            at = place.dims.index(axis)
            begin = there[at][0] + start - here[axis][0]
            there[at] = begin, begin + stop - start
        here[axis] = start - first, stop - first
    return ToldBlock(tensor=tensor.name, foreign=place.foreign, here=tuple(here), there=tuple(there), dims=place.dims)


def _gathered(blocks: Sequence[ToldBlock]) -> Iterator[ToldBlock]:
    """Those of one index of the first dimension each, as one."""
    rows: dict[Any, list[ToldBlock]] = {}
    for block in blocks:
        stacked = 0 not in block.dims and len(block.here) > 1
        item = block.here[0][0] if stacked else 0
        name = re.sub(rf"(?<=\.){item}(?=\.)", "{item}", block.foreign) if stacked else block.foreign
        if stacked and name.count("{item}") > 1:  # a layer of the same number
            head, _, tail = block.foreign.rpartition(f".{item}.")
            name = f"{head}.{{item}}.{tail}"
        rest = block.here[1:] if stacked else block.here
        rows.setdefault((block.tensor, name, rest, block.there, block.dims, stacked), []).append(block)
    for (_, name, *_, stacked), found in rows.items():
        if stacked and "{item}" in name and [block.here[0][0] for block in found] == [*range(len(found))]:
            yield found[0].model_copy(update={"foreign": name, "here": ((0, len(found)), *found[0].here[1:])})
        else:
            yield from found


def _of_foreign(
    foreign: str,
    values: torch.Tensor,
    bounds: Sequence[tuple[int, str]],
    shapes: Mapping[str, tuple[int, ...]],
    scales: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, StoredBox]]:
    starts = torch.tensor([begin for begin, _ in bounds])
    owners = torch.searchsorted(starts, values.flatten(), right=True) - 1
    for number in owners.unique().tolist():
        begin, name = bounds[number]
        mine = (owners == number).view(values.shape)
        where = mine.nonzero() if values.dim() else torch.zeros(1, 0, dtype=torch.int64)
        index = _index(values[mine].flatten() - begin, shapes[name])
        yield name, _place(foreign, name, where, index, shapes[name], scales[name])


def _place(
    foreign: str, name: str, where: torch.Tensor, index: torch.Tensor, shape: Sequence[int], scale: Sequence[int]
) -> StoredBox:
    there, here = _box(where), _box(index)
    if prod(b - a for a, b in here) != len(index) or prod(b - a for a, b in there) != len(index):
        raise _unknown(name, foreign)
    free, dims = list(range(len(here))), []
    for at, (first, _) in enumerate(there):
        same = [dim for dim in free if torch.equal(index[:, dim] - here[dim][0], where[:, at] - first)]
        if not same:
            raise _unknown(name, foreign)
        dims.append(min(same, key=lambda dim: here[dim] != (0, shape[dim])))
        free.remove(dims[-1])
    wide = tuple((a * by, b * by) for (a, b), by in zip(here, scale, strict=True))
    wide_there = tuple((a * scale[dim], b * scale[dim]) for (a, b), dim in zip(there, dims, strict=True))
    return StoredBox(foreign, wide, wide_there, tuple(dims))


def _index(numbers: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(K, dimensions)."""
    return torch.stack(torch.unravel_index(numbers, shape), -1) if shape else numbers.new_zeros(len(numbers), 0)


def _box(index: torch.Tensor) -> Region:
    return tuple((int(column.min()), int(column.max()) + 1) for column in index.t())


def _small(shape: Sequence[int]) -> tuple[int, ...]:
    """A first dimension stays: there conversions count, and cut at heads of several kinds."""
    kept = shape[:1]
    return (*kept, *(next((n for n in (SMALL, 2) if extent % n == 0 and extent > n), extent if extent <= SMALL else 1)
                     for extent in shape[len(kept):]))  # fmt: skip


def _unknown(name: str, foreign: str) -> Exception:
    rule = f"transformers makes {foreign} of {name} by a conversion that is not known here"
    return config_error("model_type", name, rule, "use another model")
