"""Whether documents of one sample are apart in a model: by what its layers are given beside the stream, and by what
they are made of.

transformers' masks end where positions begin anew; where a type's own code asks for none, or asks without positions,
documents would see each other in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hetero.models.batch import Batch
from hetero.models.provided.calls import is_mask
from hetero.models.provided.measured import FAULTS
from hetero.models.provided.skeleton import Call, Shell, Skeleton

DOCUMENTS = (11, 13), (5, 19)
"""Their lengths, in two samples: odd ones, for no size of a model is."""
_GROWING = "dynamic", "longrope"
_ACROSS = nn.Conv1d, nn.RNNBase
OWN_WAY = {
    "minimax_m3_sparse": "its layers choose what they read by blocks of a sample's positions, not of a document's",
}
"""Types of layers that are told where documents end, and do not keep to it."""


class _Document(NamedTuple):
    """One of a sample: its `row`, and where it begins and ends there."""

    row: int
    begin: int
    end: int

    @property
    def span(self) -> slice:
        return slice(self.begin, self.end)

    @property
    def length(self) -> int:
        return self.end - self.begin


def why_alone(skeleton: Skeleton, shell: Shell) -> str:
    """Why a sample must be one document; nothing where it may be several."""
    for kind in getattr(skeleton.config, "layer_types", None) or ():
        if kind in OWN_WAY:
            return OWN_WAY[kind]
    if rope := next(_growing(getattr(skeleton.config, "rope_parameters", None)), None):
        return f"its positions ({rope}) are turned by the longest document of a micro-batch"
    layers = [(type(layer).__name__, layer) for layer in skeleton.layers]
    for name, module in (("the embedding", shell.base), *layers):
        if any(isinstance(one, _ACROSS) for one in module.modules()):
            return f"{name} reads positions before a document's first, by a {_kind_of(module)}"
    try:
        told = zip(layers, _calls_apart(skeleton, shell), strict=True)
    except FAULTS:
        return "its modules are not made for positions of a sample's own"
    return next((f"{name} is not told where documents end" for (name, _), apart in told if not apart), "")


def _growing(rope: Any) -> Iterator[str]:
    """Types of positions whose angles depend on how many there are; of each kind of layer, maybe."""
    if isinstance(rope, Mapping):
        kind = rope.get("rope_type", "")
        if kind in _GROWING:
            yield kind
        for value in rope.values():
            yield from _growing(value)


def _kind_of(module: nn.Module) -> str:
    return next(type(one).__name__ for one in module.modules() if isinstance(one, _ACROSS))


def _calls_apart(skeleton: Skeleton, shell: Shell) -> list[bool]:
    """Of each layer, whether what it is given of a sample of several documents is what it is given of each alone."""
    hidden, dtype = skeleton.hidden, torch.float32
    together, apart = shell.calls(_batch(DOCUMENTS), hidden, dtype), [True] * len(skeleton.layers)
    for one in _documents():
        alone = shell.calls(_batch(((one.length,),)), hidden, dtype)
        checked = zip(apart, together, alone, strict=True)
        apart = [so_far and _is_part(whole, own, one) for so_far, whole, own in checked]
    return apart


def _batch(lengths: tuple[tuple[int, ...], ...]) -> Batch:
    positions_BT = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    tokens_BT = torch.zeros_like(positions_BT)
    return Batch(tokens_BT, tokens_BT, positions_BT if len(lengths[0]) > 1 else None)


def _documents() -> Iterator[_Document]:
    for row, lengths in enumerate(DOCUMENTS):
        begin = 0
        for length in lengths:
            yield _Document(row, begin, begin + length)
            begin += length


def _is_part(together: Call, alone: Call, document: _Document) -> bool:
    pairs = [*zip(*(tree_leaves([call.given, call.named]) for call in (together, alone)), strict=True)]
    masks = [(whole, own) for whole, own in pairs if is_mask(whole)]
    others = [(whole, own) for whole, own in pairs if not is_mask(whole)]
    return (
        bool(masks)
        and all(_is_masked(whole, own, document) for whole, own in masks)
        and all(_is_same(whole, own, document) for whole, own in others)
    )


def _is_masked(whole: torch.Tensor, own: torch.Tensor | None, document: _Document) -> bool:
    """Whether the document's positions read of it what they read where it is alone, and nothing else. Without a mask
    they read all before them."""
    read_TT = _read(whole)[min(document.row, len(whole) - 1), 0, document.span]
    length = document.length
    own_TT = torch.ones(length, length, dtype=torch.bool).tril() if own is None else _read(own)[0, 0]
    inside = torch.equal(read_TT[:, document.span], own_TT)
    return inside and int(read_TT.sum()) == int(own_TT.sum())


def _read(mask: torch.Tensor) -> torch.Tensor:
    return mask if mask.dtype == torch.bool else mask == 0


def _is_same(whole: Any, own: Any, document: _Document) -> bool:
    if not (isinstance(whole, torch.Tensor) and isinstance(own, torch.Tensor)):
        return type(whole) is type(own) and (whole is own or bool(whole == own))
    if whole.dim() != own.dim():
        return False
    longest, rows = sum(DOCUMENTS[0]), len(DOCUMENTS)
    for dim, (extent, extent_alone) in enumerate(zip(whole.shape, own.shape, strict=True)):
        if (extent, extent_alone) == (longest, document.length):
            whole = whole.narrow(dim, document.begin, document.length)
        elif dim == 0 and (extent, extent_alone) == (rows, 1):
            whole = whole[document.row : document.row + 1]
        elif extent != extent_alone:
            return False
    numbers = whole.is_floating_point() or whole.is_complex()
    return torch.allclose(whole, own) if numbers else torch.equal(whole, own)
