"""A stage of which some is frozen: no gradient, no sum, and those of the rest as ever."""

from __future__ import annotations

import pytest
import torch

from backends.operators import Operators
from hetero.engine.step.stage import ChunkModule
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.tuning import LoraOptions, Tuning
from hetero.models.unit_module import build_unit
from tests.tiny_models import tiny
from tests.unit.hetero.engine.step.one_stage import OneStage

SOME = Tuning(freeze=("embedding*", "units.1.*", "mlp.norm*", "*.q.weight", "head.weight"))
LORA = Tuning(lora=LoraOptions(rank=2))


def _summed(stage: OneStage) -> dict[str, torch.Tensor]:
    """Of a step, in which a chunk tells of all that it has made."""
    found: dict[str, torch.Tensor] = {}

    def made(chunk: int, names: list[str]) -> None:
        found.update({name: value.clone() for name, value in stage.stage.gradients(names).items()})

    stage.meter.begin(traced=False)
    stage.executor.run(lambda number: stage._batch, made)
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_trains_has_the_gradients_of_a_model_that_trains_as_a_whole(precision: str) -> None:
    some, whole = OneStage(2, 2, precision, tuning=SOME), OneStage(2, 2, precision)
    found, wanted = _summed(some), _summed(whole)
    frozen = {name for name, parameter in some.stage.parameters.items() if not parameter.requires_grad}
    assert len(frozen) == 10
    assert found.keys() == wanted.keys() - frozen == set(some.stage.chunks[0].names)
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    assert all(some.stage.parameters[name].grad is None for name in frozen)


def test_sums_lie_there_for_what_trains_alone() -> None:
    """Of narrow gradients all the time."""
    sizes = {}
    for tuning in (Tuning(), LORA):
        with LiveBytes() as live:
            stage = OneStage(2, 2, "bfloat16", tuning=tuning).stage
            sizes[tuning] = live.now
        parameters = stage.parameters.values()
        trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        assert sizes[tuning] == pytest.approx(2 * sum(p.numel() for p in parameters) + 4 * trained, rel=0.02)
    assert sizes[LORA] < sizes[Tuning()] / 2


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe", "gpt_oss", "gpt2"])
def test_a_backward_tells_of_each_unit_as_soon_as_its_gradients_are_made(kind: str) -> None:
    """Of the last one first: none waits for a tensor that no gradient reaches, as a router's correction."""
    model, weight_gradients, told = tiny(kind), WeightGradients(), list[int]()
    builder = Builder(TensorGroup(), Operators(), weight_gradients=weight_gradients)
    numbers = range(len(architecture(model).units))
    units = [build_unit(model, n, builder) for n in numbers]
    chunk, tokens_BT = ChunkModule(0, units, weight_gradients), torch.arange(12)[None]
    (loss,) = chunk({}, Batch(tokens_BT, tokens_BT)).values()
    with chunk.telling(lambda unit, names: told.append(unit)):
        chunk.differentiate([loss], [torch.ones_like(loss)])
    assert told == [number for number in reversed(numbers) if chunk.parameters_of[number]]
