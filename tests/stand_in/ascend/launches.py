"""How many of the chip's kernels the wheel asks for, with the operators of its own. Runs where the stand-in is."""

from __future__ import annotations

from collections import Counter

import pytest

from backends.ascend import AscendBackend
from tests.unit.hetero.engine.step.one_stage import OneStage

PER_LAYER, BESIDE_LAYERS = 50, 17
"""Of one micro-batch in bfloat16, forward and backward: 21 products and 7 sums of them, 12 fused kernels and a copy
that one of them wants, 7 sums where paths part and meet, and 2 of norms' gradients. Plain operators are 112 and 41."""


def _launched(layers: int) -> Counter[str]:
    from tests.stand_in.ascend.kernels import asked

    found = []
    for micro_batches in (2, 3):
        one = OneStage(layers, micro_batches, "bfloat16", "npu:0")
        one.step()
        asked.clear()
        one.step()
        found.append(Counter(asked))
    return found[1] - found[0]


def test_a_layer_asks_for_few_kernels_and_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = AscendBackend()
    chip.open(0)
    monkeypatch.setattr("backends.cpu.CpuBackend.operators", chip.operators)
    shallow, deep = _launched(1), _launched(2)
    layer = deep - shallow
    assert layer.total() <= PER_LAYER, layer
    assert (shallow - layer).total() <= BESIDE_LAYERS, shallow - layer
    assert not {"clone", "contiguous", "copy_"} & shallow.keys()
