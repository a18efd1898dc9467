"""Plain operators made into one kernel each by torch's compiler, where triton, which it needs for that, is there."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from backends.offers import Operator

_VARIANTS = 64
"""Types, sizes of one, and whether gradients are asked for: more than torch compiles of one function by default."""


def compiled(plain: Operator) -> Callable[[], Operator]:
    """The operator, for an offer to load. It is compiled when it is first called, once for all shapes of a kind; what
    cannot be compiled later on, torch runs as it is."""

    def load() -> Operator:
        if find_spec("triton") is None:
            raise RuntimeError("triton is not installed")
        _set("torch._inductor.config", "compile_threads", 1)  # a rank starts no processes of its own
        _set("torch._dynamo.config", "recompile_limit", _VARIANTS)
        made: Operator = torch.compile(plain, dynamic=True)
        return made

    return load


def _set(module: str, name: str, value: int) -> None:
    """Where this torch has such a setting: they are its own affair, and change."""
    settings: Any = import_module(module)
    if hasattr(settings, name):
        setattr(settings, name, value)
