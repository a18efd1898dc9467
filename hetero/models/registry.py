"""Families of models by name: the files of `families`, each imported when it is first used."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from hetero.models import families
from hetero.models.architecture import Architecture
from hetero.models.dimensions import Dimensions
from hetero.models.errors import ModelError
from hetero.models.tuning import EVERYTHING, Tuning, tuned


@cache
def family_names() -> tuple[str, ...]:
    """The known families, sorted."""
    return tuple(sorted(module.name for module in iter_modules(families.__path__)))


@cache
def architecture(dims: Dimensions, tuning: Tuning = EVERYTHING) -> Architecture:
    """The model of these sizes, with what a job trains of it; ModelError if there is no such family, and as `tuned`."""
    if dims.family not in family_names():
        near = get_close_matches(dims.family, family_names(), n=1)
        remedy = f"did you mean {near[0]}?" if near else "use one of them"
        rule = f"known architectures: {', '.join(family_names())}"
        raise ModelError("model.dimensions.family", dims.family, rule, remedy)
    found: Architecture = import_module(f"{families.__name__}.{dims.family}").describe(dims)
    return tuned(found, tuning)
