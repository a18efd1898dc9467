"""What recompute costs and slices of logits save, in this process: one part of `python -m benchmarks.memory`."""

from __future__ import annotations

import time
from statistics import median
from unittest.mock import patch

import torch

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.batch import Batch
from hetero.models.dimensions import Dimensions
from hetero.models.parts.head import Head
from hetero.models.registry import architecture
from hetero.models.unit_module import UnitModule, build_unit

TIMED = Dimensions(layers=1, hidden=1024, heads=8, kv_heads=4, ffn=2816, vocab=512)
LARGE = Dimensions(layers=1, hidden=128, heads=4, kv_heads=2, ffn=344, vocab=65536)
TOKENS, ROUNDS = 512, 7
WAYS: tuple[Recompute, ...] = ("none", "selective", "full")


def step_ratios() -> dict[str, float]:
    """CPU seconds of forward and backward over those of `none`: the median of rounds, each way once in a round."""
    torch.set_num_threads(1)
    models = {way: _units(TIMED, way) for way in WAYS}
    batch, taken = _text(TIMED), {way: list[float]() for way in WAYS}
    for number in range(ROUNDS + 1):
        for way, units in models.items():
            began = time.process_time()
            _loss(units, batch).backward()
            if number:
                taken[way].append(time.process_time() - began)
    return {
        f"{way}_step_ratio": median(one / plain for one, plain in zip(taken[way], taken["none"], strict=True))
        for way in WAYS[1:]
    }


def sliced_logits_saved() -> float:
    """Of the most that a head of a large vocabulary has at once, its weight and that one's gradient included."""
    sliced = _head_peak()
    with patch.object(Head, "slices", lambda *_: 1):
        return 1 - sliced / _head_peak()


def _head_peak() -> int:
    with LiveBytes() as live:
        head = _units(LARGE, "none")[-1]
        x_BTD = torch.randn(1, TOKENS, LARGE.hidden, requires_grad=True)
        head({"x_BTD": x_BTD}, _text(LARGE))["loss"].backward()
        return live.peak


def _units(dims: Dimensions, way: Recompute) -> list[UnitModule]:
    builder = Builder(TensorGroup(), Operators())
    return [build_unit(dims, unit, builder, way) for unit in range(len(architecture(dims).units))]


def _text(dims: Dimensions) -> Batch:
    tokens_BT = torch.randint(dims.vocab, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    return Batch(tokens_BT, tokens_BT)


def _loss(units: list[UnitModule], batch: Batch) -> torch.Tensor:
    boundary: dict[str, torch.Tensor] = {}
    for unit in units:
        boundary = unit(boundary, batch)
    return boundary["loss"]
