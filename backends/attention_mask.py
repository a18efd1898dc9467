"""Which positions attention reads: told once, for kernels that take a mask and for those that take borders.

Shapes: B batch, T time; of a kernel's own, S positions of all samples one after another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakValueDictionary

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
    _added: dict[tuple[int, torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def added(self, x_BHTK: Tensor) -> Tensor:
        """What scores are added up with: 0 where a position is read, -inf elsewhere. (B, 1, T, T) in the type and on
        the device of x; without documents (1, 1, T, T)."""
        how = x_BHTK.size(2), x_BHTK.device, x_BHTK.dtype
        if how not in self._added:
            with torch.inference_mode(False):
                self._added[how] = self._make_added(*how)
        return self._added[how]

    def _make_added(self, length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        if self.documents_BT is None:
            read_BTT = torch.ones(1, length, length, dtype=torch.bool, device=device)
        else:
            document_BT = self.documents_BT.to(device)
            read_BTT = document_BT[:, :, None] == document_BT[:, None, :]
        read_BTT.tril_()
        if self.window is not None:
            read_BTT.triu_(1 - self.window)
        added_BTT = torch.zeros(read_BTT.shape, dtype=dtype, device=device)
        return added_BTT.masked_fill_(read_BTT.logical_not_(), -torch.inf)[:, None]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Where documents end in S, in order: what kernels for sequences of many lengths are given."""
        assert self.documents_BT is not None, "without documents all samples are of one length"
        document_BT = self.documents_BT.cpu()
        last_BT = torch.ones_like(document_BT, dtype=torch.bool)
        last_BT[:, :-1] = document_BT[:, 1:] != document_BT[:, :-1]
        return tuple((last_BT.flatten().nonzero().flatten() + 1).tolist())


_plain: WeakValueDictionary[int | None, AttentionMask] = WeakValueDictionary()


def plain_mask(window: int | None) -> AttentionMask:
    """That of samples of one document each: the same for all micro-batches, as long as anybody holds it."""
    mask = _plain.get(window)
    if mask is None:
        mask = _plain[window] = AttentionMask(None, window)
    return mask
