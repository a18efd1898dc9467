"""Which positions attention reads: told once, for kernels that take a mask and for those that take borders.

Shapes: B batch, T time; of a kernel's own, S positions of all samples one after another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """A position reads itself and those before it: of its own document, and no more than the last `window`.

    `documents_BT` numbers each position's document, whose positions lie side by side; None: each sample is one. Best
    left on the host, where borders are read. One for all layers of a micro-batch: what operators ask of it is made when
    it is asked for first, and stays as long as it does.
    """

    documents_BT: Tensor | None = None
    window: int | None = None
    _added: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def added(self, x_BHTK: Tensor) -> Tensor:
        """What scores are added up with: 0 where a position is read, -inf elsewhere. (B, 1, T, T) in the type and on
        the device of x; without documents (1, 1, T, T)."""
        length, where = x_BHTK.size(2), (x_BHTK.device, x_BHTK.dtype)
        if self.documents_BT is None:
            return _added_by_window(length, self.window, *where)
        if where not in self._added:
            with torch.inference_mode(False):
                document_BT = self.documents_BT.to(x_BHTK.device)
                alike_BTT = document_BT[:, :, None] == document_BT[:, None, :]
                self._added[where] = _as_added(alike_BTT & _in_window(length, self.window, x_BHTK.device), *where)
        return self._added[where]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Where documents end in S, in order: what kernels for sequences of many lengths are given."""
        assert self.documents_BT is not None, "without documents all samples are of one length"
        document_BT = self.documents_BT.cpu()
        last_BT = torch.ones_like(document_BT, dtype=torch.bool)
        last_BT[:, :-1] = document_BT[:, 1:] != document_BT[:, :-1]
        return tuple((last_BT.flatten().nonzero().flatten() + 1).tolist())


def _in_window(length: int, window: int | None, device: torch.device) -> Tensor:
    read_TT = torch.ones(length, length, dtype=torch.bool, device=device).tril_()
    return read_TT if window is None else read_TT.triu_(1 - window)


def _as_added(read_BTT: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    added_BTT = torch.zeros(read_BTT.shape, dtype=dtype, device=device)
    return added_BTT.masked_fill_(~read_BTT, -torch.inf)[:, None]


@lru_cache(maxsize=8)
def _added_by_window(length: int, window: int | None, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Of all micro-batches alike."""
    with torch.inference_mode(False):
        return _as_added(_in_window(length, window, device)[None], device, dtype)
