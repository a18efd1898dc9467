"""Architectures by name; each is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

from hetero.models.architecture import Architecture
from hetero.models.errors import ModelError

FAMILIES = {"llama": "hetero.models.llama:Llama"}


def architecture(family: str) -> Architecture:
    """The architecture of that name; ModelError if there is none."""
    if family not in FAMILIES:
        near = get_close_matches(family, FAMILIES, n=1)
        remedy = f"did you mean {near[0]}?" if near else "use one of them"
        raise ModelError("model.dimensions.family", family, f"known architectures: {', '.join(FAMILIES)}", remedy)
    return cast(Architecture, _load(FAMILIES[family]))


def unit_builder(family: str) -> Callable[..., Any]:
    """The architecture's `build_unit`; imports torch."""
    return cast("Callable[..., Any]", _load(architecture(family).builder))


def _load(dotted: str) -> Any:
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)
