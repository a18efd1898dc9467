"""One unit on this rank as calibration tries it: built like those that train, without the cost of first values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from backends.backend import Stopwatch
from balancer.plan.recompute import Recompute
from balancer.schedule.action import Kind
from hetero.engine.step.stage import DTYPES, ChunkModule
from hetero.engine.trial import Trial
from hetero.engine.world import World
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.unit_module import Boundary, build_unit

Expected = Mapping[Kind, float]
"""Seconds that an emulated chip takes for the sequences of a trial; nothing of real chips."""

_SPREAD = 0.02
"""Of weights, about as models begin with."""
_BLOCK = (1 << 18) + 1
"""Values that are made; odd, so that no two rows of a matrix are equal soon."""


class Passes:
    """Of unit `index` of the trial's model. Each call passes once, and returns the stopwatches of its actions."""

    def __init__(
        self,
        world: World,
        group: TensorGroup,
        trial: Trial,
        index: int,
        expected: Expected,
        recompute: Recompute = "none",
    ) -> None:
        self._backend, self._trial, self._expected = world.backend, trial, expected
        self._dtype, self._device = DTYPES[trial.precision], world.backend.device
        weight_gradients = WeightGradients(world.backend.operators.add_product)
        place = group, world.backend.operators, self._dtype, self._device
        builder = Builder(*place, seed=None, weight_gradients=weight_gradients)
        unit = build_unit(trial.model, index, builder, recompute, trial.tuning)
        self._unit = ChunkModule(index, [unit], weight_gradients)
        for parameter in self._unit.parameters():
            fill_with_noise(parameter.data, _SPREAD)
        self._batch = _batch(trial).to(self._device)

    def whole(self) -> tuple[Stopwatch, Stopwatch]:
        """A forward, and a backward in one action."""
        forward, outputs = self._forward()
        return forward, self._backward(Kind.B, outputs)

    def apart(self) -> tuple[Stopwatch, Stopwatch]:
        """Both actions of a backward."""
        _, outputs = self._forward()
        with self._unit.keeping() as pairs:
            inputs = self._backward(Kind.I, outputs)
        weights = self._backend.start(self._expected.get(Kind.W))
        self._unit.make(pairs, _nobody)
        weights.stop()
        return inputs, weights

    def _forward(self) -> tuple[Stopwatch, Boundary]:
        shape, sizes = (self._trial.sequences, self._trial.seq_len), architecture(self._trial.model).boundary
        inputs = {
            name: fill_with_noise(torch.empty((*shape, size), dtype=self._dtype, device=self._device)).requires_grad_()
            for name, size in sizes.items()
        }
        watch = self._backend.start(self._expected.get(Kind.F))
        outputs = self._unit(inputs, self._batch)
        watch.stop()
        return watch, outputs

    def _backward(self, kind: Kind, outputs: Boundary) -> Stopwatch:
        gradients = [fill_with_noise(torch.empty_like(output)) for output in outputs.values()]
        watch = self._backend.start(self._expected.get(kind))
        self._unit.differentiate(list(outputs.values()), gradients)
        watch.stop()
        return watch


def fill_with_noise(tensor: torch.Tensor, spread: float = 1.0) -> torch.Tensor:
    """Fills a new tensor with normal values and returns it: chips compute faster and cooler on equal ones.

    A block of them again and again, at the speed of the chip's memory. Equal on all ranks of a tensor-parallel group.
    """
    flat = tensor.view(-1)
    made = torch.Generator().manual_seed(0)
    block = torch.randn(min(_BLOCK, flat.numel()), generator=made).mul_(spread).to(tensor.device, tensor.dtype)
    for part in flat.split(_BLOCK):
        part.copy_(block[: part.numel()])
    return tensor


def _batch(trial: Trial) -> Batch:
    """One for all passes: masks are made in the first, which does not count, as the other layers of a run find them."""
    shape = trial.sequences, trial.seq_len
    tokens_BT = torch.randint(trial.model.vocab, shape, generator=torch.Generator().manual_seed(0))
    if not trial.packed:
        return Batch(tokens_BT, tokens_BT)
    return Batch(tokens_BT, tokens_BT, torch.arange(trial.seq_len).expand(shape), torch.zeros_like(tokens_BT))


def _nobody(unit: int, names: Iterable[str]) -> None: ...
