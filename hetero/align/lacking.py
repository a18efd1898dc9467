"""Tensors that cannot be read as a model has them: faults that are there before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator

from hetero.align.misalignment import Misalignment
from hetero.align.source import Source
from hetero.models.architecture import Architecture
from hetero.models.registry import architecture


def lacking(source: Source) -> list[Misalignment]:
    """Of each tensor that cannot be read as the model has it. HfError for what else does not fit."""
    model = architecture(source.description)
    faults = [
        Misalignment(number, model.units[number].kind, name.rpartition(".")[0], local.removesuffix(".weight"), "tensor",
              cause=why)
        for name, why in source.lacking().items()
        for number, local in _users(model, source, name)
    ]  # fmt: skip
    return sorted(faults, key=lambda fault: fault.unit)


def _users(model: Architecture, source: Source, name: str) -> Iterator[tuple[int, str]]:
    """Units, and the name within each, of a directory's tensor; of a tie, the unit that borrows."""
    tied, logical = name in source.map.ties, source.map.logical_of(name)
    for number, unit in enumerate(model.units):
        for local, spec in model.tensors(number, 1).items():
            if spec.name in logical and (local in unit.ties) is tied:
                yield number, local
