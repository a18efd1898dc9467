"""Gradients that wait for a collective are made though there is none in a part's backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hetero.engine import passes
from hetero.layers.group import TensorGroup
from hetero.layers.weight_gradients import WeightGradients
from tests.unit.hetero.engine.step.one_stage import OneStage
from tests.unit.hetero.engine.test_calibration import _rows

COPY_IN = TensorGroup.copy_in


def _plain_copy_in(self: TensorGroup, x: torch.Tensor, meanwhile: Callable[[], None] | None = None) -> torch.Tensor:
    """As a part asks for it that knows of nothing to do meanwhile."""
    return COPY_IN(self, x)


def _gradients(precision: str) -> dict[str, torch.Tensor]:
    one = OneStage(layers=2, micro_batches=2, precision=precision, tp=2)
    one.meter.begin(traced=False)
    one.executor.run(lambda number: one._batch, lambda chunk, names: None)
    return {name: gradient.clone() for name, gradient in one.stage.gradients(one.stage.parameters).items()}


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_of_parts_that_do_nothing_meanwhile(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _gradients(precision)
    monkeypatch.setattr(TensorGroup, "copy_in", _plain_copy_in)
    found = _gradients(precision)
    assert all(gradient.any() for gradient in found.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)


def test_units_are_told_of_when_theirs_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorGroup, "copy_in", _plain_copy_in)
    one, told = OneStage(layers=1, micro_batches=1, tp=2), list[dict[str, bool]]()

    def sync(chunk: int, names: Any) -> None:
        told.append({name: one.stage.parameters[name].grad is not None for name in names})

    one.meter.begin(traced=False)
    one.executor.run(lambda number: one._batch, sync)
    assert len(told) == len(one.stage.chunks[0].parameters_of) + 1
    assert all(made for unit in told for made in unit.values())


def test_a_unit_that_is_timed_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[WeightGradients] = []

    class Seen(WeightGradients):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            kept.append(self)

        def take(self, pair: Any, deferred: bool = False) -> None:
            super().take(pair, deferred=True)

    monkeypatch.setattr(TensorGroup, "copy_in", _plain_copy_in)
    monkeypatch.setattr(passes, "WeightGradients", Seen)
    assert _rows(monkeypatch)
    assert kept
    assert not any(one._deferred for one in kept)
