"""A stage of which some is frozen: no gradient, no sum, and those of the rest as ever."""

from __future__ import annotations

import pytest
import torch

from hetero.models.tuning import LoraOptions, Tuning
from tests.live_bytes import LiveBytes
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
