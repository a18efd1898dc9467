"""Plain operators made into one kernel each by torch's compiler, where triton, which it needs for that, is there."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from backends.offers import Operator


def compiled(plain: Operator) -> Callable[[], Operator]:
    """The operator, for an offer to load. It is compiled when it is first called, once for all shapes of a kind."""

    def load() -> Operator:
        if find_spec("triton") is None:
            raise RuntimeError("triton is not installed")
        settings: Any = import_module("torch._inductor.config")
        settings.compile_threads = 1  # a rank starts no processes of its own
        made: Operator = torch.compile(plain, dynamic=True, fullgraph=True)
        return made

    return load
