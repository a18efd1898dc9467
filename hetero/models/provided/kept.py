"""Bytes that lie there until backward: what modules keep, and what layers are given that they share with others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from backends.meta_attention import as_on_cpu
from hetero.models.batch import Batch
from hetero.models.provided.elementwise import wrap
from hetero.models.provided.skeleton import META, Call

Storages = dict[int, torch.UntypedStorage]
"""By what tells one from another as long as it is held."""


@contextmanager
def kept_on_meta() -> Iterator[Storages]:
    """What backward is to find, of what is computed inside on no device, but for parameters."""
    found: Storages = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.device == META and not isinstance(x, nn.Parameter):
            storage = x.untyped_storage()
            found[storage._cdata] = storage
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        yield found


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, attention on no device keeps what it keeps on a CPU: no scores, where this has one kernel for it."""
    with patch.object(F, "scaled_dot_product_attention", as_on_cpu(F.scaled_dot_product_attention)):
        yield


@contextmanager
def made_in(modules: Iterable[nn.Module], found: Storages) -> Iterator[tuple[Storages, Storages]]:
    """What is left of `found`, at the end, where these modules keep what they are given and make the rest again; and
    that."""
    inside, given = Storages(), Storages()

    def watched(own: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def forward(*inputs: torch.Tensor) -> torch.Tensor:
            given.update((x.untyped_storage()._cdata, x.untyped_storage()) for x in inputs)
            with kept_on_meta() as kept:
                made = own(*inputs)
            found.update(kept)
            inside.update({**kept, made.untyped_storage()._cdata: made.untyped_storage()})
            return made

        return forward

    for module in modules:
        wrap(module, watched)
    left: Storages = {}
    yield left, inside
    for key in given:
        inside.pop(key, None)
    left.update({key: storage for key, storage in found.items() if key not in inside})
    left.update(given)


def kept_bytes(module: nn.Module, x: torch.Tensor) -> int:
    """By a module of one input, which counts where it is kept."""
    with kept_on_meta() as found:
        module(x)
    return sum(storage.nbytes() for storage in found.values())


def beside(found: Storages, call: Call) -> int:
    """Bytes of what is found that a layer was not given beside the stream."""
    given = {x.untyped_storage()._cdata for x in _tensors(call)}
    return sum(storage.nbytes() for key, storage in found.items() if key not in given)


def given_bytes(calls: Sequence[Call], number: int, batch: Batch) -> Mapping[str, int]:
    """Of what one of the layers is given beside the stream and the batch's own positions, by the first layer and place
    that has it."""
    names: dict[int, str] = {}
    for layer, call in enumerate(calls[: number + 1]):
        for place, x in enumerate(tree_leaves([call.given, call.named])):
            if isinstance(x, torch.Tensor):
                names.setdefault(x.untyped_storage()._cdata, f"{layer}.{place}")
    own = None if batch.positions_BT is None else batch.positions_BT.untyped_storage()._cdata
    storages = [x.untyped_storage() for x in _tensors(calls[number]) if x.untyped_storage()._cdata != own]
    return {names[storage._cdata]: storage.nbytes() for storage in storages}


def _tensors(call: Call) -> list[torch.Tensor]:
    return [x for x in tree_leaves([call.given, call.named]) if isinstance(x, torch.Tensor)]
