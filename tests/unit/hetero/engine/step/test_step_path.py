"""What a micro-batch costs beside its arithmetic: kernels that are launched, waits for the chip, what is left behind.

Counted with the plain operators, whose kernels are those of a chip that brings none of its own. Chips that do launch
fewer: one in place of those of each operator.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from backends.operators import Operators
from benchmarks.traffic import Traffic
from tests.unit.hetero.engine.step.one_stage import OneStage

PER_LAYER = {"float32": 97, "bfloat16": 112}
"""Forward and backward: 21 products (28 with their float32 sums), 2 of attention, 7 sums where paths part and meet; all
else is norms, rotary and SwiGLU."""
BESIDE_LAYERS = {"float32": 35, "bfloat16": 41}
"""Embedding, last norm, head and loss, what begins a backward, and the sum of losses."""


def _launched(layers: int, precision: str) -> Counter[str]:
    """By one more micro-batch of a step."""
    few, more = (_in_step(OneStage(layers, micro_batches, precision)) for micro_batches in (2, 3))
    return more - few


def _in_step(one: OneStage) -> Counter[str]:
    one.step()
    with Traffic() as traffic:
        one.step()
    return Counter(name for name in traffic.operators if name != "aten._unsafe_view")


@pytest.mark.slow
@pytest.mark.parametrize("precision", PER_LAYER)
def test_no_more_kernels_than_needed(precision: str) -> None:
    shallow, deep = (_launched(layers, precision) for layers in (1, 2))
    layer = deep - shallow
    assert layer.total() <= PER_LAYER[precision], layer
    assert (shallow - layer).total() <= BESIDE_LAYERS[precision], shallow - layer


@pytest.mark.parametrize("tp", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("precision", PER_LAYER)
def test_a_step_never_waits_for_the_chip(precision: str, tp: int) -> None:
    """Nothing has a value here, so that nobody can look at one."""
    OneStage(1, 3, precision, "meta", tp).step()


def test_who_would_wait_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return Operators.swiglu(gate, up) if gate.isfinite().all() else gate

    monkeypatch.setattr("backends.cpu.CpuBackend.operators", replace(Operators(), swiglu=looks))
    with pytest.raises(RuntimeError, match="meta tensors"):
        OneStage(1, 2, device="meta").step()


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What nobody holds any more and only Python's collector would find."""
    gc.collect()
    gc.freeze()  # what is there already is none of this test's business
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.enable()


@pytest.mark.slow
def test_a_micro_batch_leaves_nothing_behind(garbage: list[object]) -> None:
    """However many there were, as many objects stay; and none that would keep a chip's memory until it is collected."""
    ones = [OneStage(1, micro_batches, "bfloat16") for micro_batches in (2, 6)]
    left = []
    for one in ones:
        one.step()
        gc.collect()
        garbage.clear()
        before = len(gc.get_objects())
        for _ in range(2):
            one.step()
        gc.collect()
        assert not garbage
        left.append(len(gc.get_objects()) - before)
    assert max(left) <= 0
