"""What is timed before a plan is made: units as they train, without the cost of first values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from bridge.rank import RankId
from hetero.engine import calibration
from hetero.engine.calibration import calibrate
from hetero.engine.spec import CalibrationSpec
from hetero.engine.world import World
from hetero.layers import builder
from hetero.models.dimensions import Dimensions
from hetero.models.llama_units import HeadUnit

TINY = Dimensions(layers=1, hidden=16, heads=2, kv_heads=2, ffn=32, vocab=50)


def _spec() -> CalibrationSpec:
    return CalibrationSpec(
        dimensions=TINY,
        pools={},
        tensor_parallel={"a": (1,)},
        seq_len=8,
        micro_batch=2,
        precisions={"a": "float32"},
        repeats=1,
    )


def _rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(calibration.dist, "all_reduce", lambda _: None)
    return calibrate(_spec(), World(CpuBackend(), RankId("a", 0), 1))


def test_each_kind_of_unit_is_timed_once_and_no_first_value_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost minutes for a large vocabulary, and a time does not depend on them."""
    monkeypatch.setattr(builder, "fill_normal", lambda *_: pytest.fail("made first values"))
    rows = _rows(monkeypatch)
    assert {row["kind"] for row in rows} == {"embedding", "attention", "mlp", "head"}
    assert all(row["forward_s"] > 0 and row["backward_s"] > 0 for row in rows)


def test_inputs_and_weights_are_as_different_as_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal values flatter: products of ones switch few transistors, and all tokens would read one row."""
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    forward = HeadUnit.forward

    def looked(self: HeadUnit, boundary: Any, batch: Any) -> Any:
        seen.append((boundary["x_BTD"].detach(), batch.labels_BT, self.head.weight.detach()))
        return forward(self, boundary, batch)

    monkeypatch.setattr(HeadUnit, "forward", looked)
    _rows(monkeypatch)
    x_BTD, labels_BT, weight_VD = seen[0]
    assert x_BTD.unique().numel() == x_BTD.numel()
    assert labels_BT.unique().numel() > 4
    assert weight_VD.unique().numel() == weight_VD.numel()
    assert 0.01 < weight_VD.std() < 0.04


def test_long_tensors_are_filled_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_BLOCK", 7)
    filled = calibration.fill_with_noise(torch.full((3, 8), torch.nan))
    assert filled.isfinite().all()
    assert filled.unique().numel() == 7
