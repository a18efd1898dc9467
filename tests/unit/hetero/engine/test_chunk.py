"""A chunk tells of its units' gradients while its backward is still under way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from hetero.engine.step.stage import ChunkModule
from hetero.models.batch import Batch

NOTHING = torch.empty(0)


class Scale(nn.Module):
    """x_BTD times its weights, of which one may be another unit's."""

    def __init__(self, names: Iterable[str], shared: dict[str, nn.Parameter], used: bool = True) -> None:
        super().__init__()
        self.names, self.used = list(names), used
        for name in self.names:
            shared.setdefault(name, nn.Parameter(torch.full((2,), 2.0)))
        self.weights = nn.ParameterList(shared[name] for name in self.names)

    def tensors(self) -> Iterator[Any]:
        for name, weight in zip(self.names, self.weights, strict=True):
            yield SimpleNamespace(name=name, parameter=weight)

    def forward(self, boundary: dict[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        x_BTD = boundary["x_BTD"]
        for weight in self.weights if self.used else ():
            x_BTD = x_BTD * weight
        return {"x_BTD": x_BTD}


def _backward(chunk: ChunkModule, made: Any) -> None:
    outputs = chunk({"x_BTD": torch.ones(1, 1, 2).requires_grad_()}, Batch(NOTHING, NOTHING))
    with chunk.telling(made):
        outputs["x_BTD"].sum().backward()


def _chunk(*units: Scale) -> ChunkModule:
    return ChunkModule(3, list(units))


def test_units_are_told_from_the_last_to_the_first_with_their_gradients_made() -> None:
    shared: dict[str, nn.Parameter] = {}
    told = []

    def made(unit: int, names: Iterable[str]) -> None:
        complete = {name for name, parameter in shared.items() if parameter.grad is not None}
        told.append((unit, sorted(names), complete))

    chunk = _chunk(Scale(["a"], shared), Scale(["b", "c"], shared), Scale(["d"], shared))
    _backward(chunk, made)
    assert told == [(5, ["d"], {"d"}), (4, ["b", "c"], {"b", "c", "d"}), (3, ["a"], {"a", "b", "c", "d"})]
    assert chunk.names == ["a", "b", "c", "d"]


def test_outside_nobody_is_told() -> None:
    told: list[int] = []
    chunk = _chunk(Scale(["a"], {}))
    _backward(chunk, lambda unit, names: told.append(unit))
    chunk({"x_BTD": torch.ones(1, 1, 2)}, Batch(NOTHING, NOTHING))["x_BTD"].sum().backward()
    assert told == [3]


def test_a_weight_of_two_units_is_the_first_one_s_and_counts_both_uses() -> None:
    shared: dict[str, nn.Parameter] = {}
    told = []
    chunk = _chunk(Scale(["tied"], shared), Scale(["a"], shared), Scale(["tied", "b"], shared))
    _backward(chunk, lambda unit, names: told.append((unit, list(names), _gradients(shared))))
    assert [(unit, names) for unit, names, _ in told] == [(5, ["b"]), (4, ["a"]), (3, ["tied"])]
    assert told[-1][2]["tied"] == 2 * 2.0**3  # of x * tied * a * tied * b, by both uses


def test_a_unit_without_gradients_is_not_told_of() -> None:
    shared: dict[str, nn.Parameter] = {}
    told: list[int] = []
    _backward(_chunk(Scale(["a"], shared), Scale(["b"], shared, used=False)), lambda unit, names: told.append(unit))
    assert told == [3]


def _gradients(shared: dict[str, nn.Parameter]) -> dict[str, float]:
    return {name: float(p.grad[0]) for name, p in shared.items() if p.grad is not None}
