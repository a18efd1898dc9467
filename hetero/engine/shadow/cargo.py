"""What crosses so that a unit can be computed again: its tensors, what it was given and gave, the gradients of both.

Shapes: B sequences, T positions, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from bridge.layout.layout import Shape, TensorLayout
from bridge.layout.reshard import Piece, Placement, reshard
from hetero.engine.shadow.turn import ShadowTurn
from hetero.engine.step.stage import DTYPES
from hetero.engine.wiring import stream_placement
from hetero.models.registry import architecture
from hetero.models.unit import LOSS, STREAM
from hetero.words.spec import RunSpec

BATCH = "batch"
"""Tokens and labels, and where samples are packed positions and documents: (2 or 4, B * T)."""


class Cargo(NamedTuple):
    """One tensor: where the stage has it, and the whole of it at the shadow; `on_chip` if that computes with it as it
    is."""

    name: str
    dtype: torch.dtype
    source: Placement
    target: Placement
    on_chip: bool = False

    @property
    def shape(self) -> Shape:
        return self.source.layout.shape

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return reshard(self.source, self.target).pieces


def stream_before(unit: int) -> str:
    """The name of what enters a unit, (B * T, D); behind the last one of a chunk, of what leaves it."""
    return f"stream {unit}"


def gradient_before(unit: int) -> str:
    """The name of the gradient of that."""
    return f"gradient {unit}"


class TurnCargo:
    """Of one turn. Both ends come to the same."""

    def __init__(self, spec: RunSpec, turn: ShadowTurn) -> None:
        self._spec, self._turn, self._ranks = spec, turn, turn.place.ranks
        self._model = architecture(spec.model, spec.train.tuning)
        pipeline = spec.plan.pipelines[turn.place.pipeline]
        self._stage = pipeline.stages[turn.place.stage]
        self._dtype = DTYPES[str(self._stage.precision)]
        self._shape_BT = pipeline.micro_batch, spec.text.seq_len

    def by_unit(self) -> Iterator[tuple[int, list[Cargo]]]:
        """In the order of the model. What several units need comes with the first of them."""
        first = self._turn.chunks[0][0]
        for begin, end in self._turn.chunks:
            for unit in range(begin, end):
                batch = [self._batch()] if unit == first and self._reads_text else []
                given = self._stream(begin, unit) if unit == begin > 0 else []
                yield unit, [*self._parameters(unit), *batch, *given, *self._made(begin, unit)]

    def _parameters(self, unit: int) -> Iterator[Cargo]:
        axes, stage = self._turn.place.axes, self._stage
        found = self._model.tensors(unit, stage.tp, stage.sequence_parallel, stage.experts == "spread")
        for tensor in found.values():
            yield self._cargo(tensor.name, self._dtype, axes.spread(tensor.layout, "tp"), on_chip=True)

    @property
    def _reads_text(self) -> bool:
        """As the stage does."""
        last = len(self._model.units) - 1
        return self._spec.text.packs or any(unit in range(*chunk) for chunk in self._turn.chunks for unit in (0, last))

    def _batch(self) -> Cargo:
        rows, columns = self._shape_BT
        shape = 4 if self._spec.text.packs else 2, rows * columns
        return self._cargo(BATCH, torch.int64, TensorLayout.replicated(shape, len(self._ranks)))

    def _made(self, begin: int, unit: int) -> list[Cargo]:
        if self._model.units[unit].gives == LOSS:
            return [self._cargo(LOSS, torch.float32, TensorLayout.replicated((1, 1), len(self._ranks)))]
        return self._stream(begin, unit + 1)

    def _stream(self, begin: int, unit: int) -> list[Cargo]:
        """What enters a unit of the chunk that begins there, and the gradient of it, if the stage makes one."""
        size = self._model.boundary[STREAM]
        source = stream_placement(self._shape_BT, size, self._ranks, self._stage.sequence_parallel)
        names = [stream_before(unit), *([gradient_before(unit)] if self._learns(begin, unit) else [])]
        return [Cargo(name, self._dtype, source, self._whole(source.layout.shape)) for name in names]

    def _learns(self, begin: int, unit: int) -> bool:
        """Whether backwards go through what enters a unit: not where nothing before it trains."""
        before = (tensor for one in range(begin, unit) for tensor in self._model.tensors(one, 1).values())
        return begin > 0 or any(tensor.trains for tensor in before)

    def _cargo(self, name: str, dtype: torch.dtype, layout: TensorLayout, on_chip: bool = False) -> Cargo:
        return Cargo(name, dtype, Placement(layout, self._ranks), self._whole(layout.shape), on_chip)

    def _whole(self, shape: Shape) -> Placement:
        return Placement(TensorLayout.replicated(shape, 1), (self._turn.rank,))
