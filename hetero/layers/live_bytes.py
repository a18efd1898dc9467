"""A count of the tensors that are there: what an allocator would say, of a chip that has none."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from backends.watching import Watching


class LiveBytes(Watching):
    """Bytes `now` and at `peak` of the storages that were made inside and are still alive, of all devices or one type.
    Views add nothing."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self._device = device
        self.now = self.peak = 0
        self._storages: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {_storage(x)._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and _storage(x)._cdata not in given | self._storages.keys():
                self._add(_storage(x))
        return result

    def count(self, x: torch.Tensor) -> None:
        """One more, which was made outside."""
        if _storage(x)._cdata not in self._storages:
            self._add(_storage(x))

    def _add(self, storage: torch.UntypedStorage) -> None:
        if self._device not in (None, storage.device.type):
            return
        self._storages[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self.now -= self._storages.pop(key)


def _storage(x: torch.Tensor) -> torch.UntypedStorage:
    return x.untyped_storage()
