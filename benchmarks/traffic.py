"""What operators do to a chip's memory: how many there are, and the bytes that they read and write."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Traffic(TorchDispatchMode):
    """Counts, of what this thread computes inside."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not _views(func):
            name = str(func.overloadpacket)
            self.operators.append(name)
            read = args[1:] if name == "aten.copy_" else args
            self.bytes += sum(x.nbytes for x in tree_leaves((read, made)) if isinstance(x, torch.Tensor))
        return made


def _views(func: Any) -> bool:
    """Or makes memory without touching it."""
    if str(func.overloadpacket) in ("aten.empty", "aten.detach"):
        return True
    return any(result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns)
