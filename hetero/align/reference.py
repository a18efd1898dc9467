"""What a model is compared with: transformers' own of the same weights, or another model of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from hetero.align.errors import AlignError
from hetero.align.given_text import GivenText
from hetero.align.model_trace import ModelTrace
from hetero.align.ours import OurModel
from hetero.align.source import Source
from hetero.align.theirs import transformers_trace


class Reference(ABC):
    """`source` has its weights; `dtypes` are what it is computed in. `samples` is None where it takes any number."""

    source: Source
    dtypes: Sequence[str]
    samples: int | None = None

    @abstractmethod
    def trace(self, text: GivenText) -> ModelTrace:
        """What it computes. Raises errors that explain themselves where it cannot."""


class TheirReference(Reference):
    """transformers' own class."""

    def __init__(self, source: Source, dtype: str) -> None:
        self.source, self.dtypes = source, (dtype,)

    def trace(self, text: GivenText) -> ModelTrace:
        return transformers_trace(self.source, getattr(torch, self.dtypes[0]), text.batch)


class OurReference(Reference):
    """Another model of ours. Raises AlignError where it lacks tensors."""

    def __init__(self, source: Source, dtype: str) -> None:
        self.source, self.dtypes = source, (dtype,)
        if lost := source.lacking():
            raise AlignError("--against", source.name, "; ".join(lost.values()), "compare with a model that is whole")

    def trace(self, text: GivenText) -> ModelTrace:
        return OurModel(self.source, getattr(torch, self.dtypes[0])).trace(text.batch)


def check_comparable(ours: Source, reference: Source) -> None:
    """AlignError unless units and tensors are as many and as large."""
    wanted, found = ours.shapes, reference.shapes
    odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if odd:
        here, there = (shapes.get(odd[0], "not there") for shapes in (wanted, found))
        rule = f"{odd[0]} is {there}, and the model's {here}"
        raise AlignError("--against", reference.name, rule, "compare models of one architecture and size")
