"""What layers are given beside the stream: angles of positions, and masks. No token decides it.

That of samples of one document each is made once for all micro-batches of a size; that of others, whose positions
begin anew, lasts as long as their batch. Masks are what scores are added up with, as `AttentionMask` has them: of truth
values each layer would make numbers of its own, and keep them until backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.utils._pytree import tree_map

from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel
from hetero.models.provided.part import ProvidedPart
from hetero.models.provided.skeleton import Call, Shell, skeleton_of

KEY = "calls of layers"
SIZES = 4
"""Of micro-batches, whose angles are kept: training's and an evaluation's, in two precisions."""


def calls_of(part: ProvidedPart, batch: Batch, dtype: torch.dtype) -> Sequence[Call]:
    """Of each layer of the model, on the device of the batch."""
    return batch.once((KEY, part.model, dtype), lambda: _calls_of(part, batch, dtype))


def _calls_of(part: ProvidedPart, batch: Batch, dtype: torch.dtype) -> Sequence[Call]:
    if batch.positions_BT is not None:
        return _made(part.model, part.gives, part.hidden, batch, dtype)
    tokens_BT = batch.tokens_BT
    return _plain(part.model, part.gives, part.hidden, tuple(tokens_BT.shape), tokens_BT.device, dtype)


@lru_cache(maxsize=SIZES)
def _plain(
    model: HfModel,
    gives: tuple[int, ...],
    hidden: int,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Sequence[Call]:
    with torch.inference_mode(False):
        tokens_BT = torch.zeros(shape, dtype=torch.int64, device=device)
        return _made(model, gives, hidden, Batch(tokens_BT, tokens_BT), dtype)


def _made(model: HfModel, gives: tuple[int, ...], hidden: int, batch: Batch, dtype: torch.dtype) -> Sequence[Call]:
    shell = _shell(model, gives)
    shell.to(batch.tokens_BT.device)
    return with_numbers(shell.calls(batch, hidden, dtype), dtype)


@lru_cache(maxsize=2)
def _shell(model: HfModel, gives: tuple[int, ...]) -> Shell:
    return skeleton_of(model).shell(gives)


def with_numbers(calls: Sequence[Call], dtype: torch.dtype) -> Sequence[Call]:
    """With masks of numbers: what is one tensor stays one."""
    made: dict[int, torch.Tensor] = {}

    def numbers(x: Any) -> Any:
        if not is_mask(x) or x.dtype != torch.bool:
            return x
        if id(x) not in made:
            added = torch.zeros(x.shape, dtype=dtype, device=x.device)
            made[id(x)] = added.masked_fill_(x.logical_not(), torch.finfo(dtype).min)
        return made[id(x)]

    return [Call(tree_map(numbers, call.given), tree_map(numbers, call.named)) for call in calls]


def is_mask(x: Any) -> bool:
    """By its shape: of samples, heads, and two positions."""
    return isinstance(x, torch.Tensor) and x.dim() == 4 and x.shape[-1] == x.shape[-2]
