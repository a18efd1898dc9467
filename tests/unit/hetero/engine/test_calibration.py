"""What is timed before a plan is made: units as they train, without the cost of first values."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends import operators
from backends.attention_mask import AttentionMask
from backends.backend import Stopwatch
from backends.cpu import CpuBackend
from bridge.rank import RankId
from hetero.engine import calibration, passes
from hetero.engine.calibration import calibrate
from hetero.engine.trial import Limits
from hetero.engine.world import World
from hetero.layers import builder
from hetero.models.dimensions import Dimensions
from hetero.models.parts.head_module import HeadModule
from hetero.words.orders import TimedUnit
from hetero.words.spec import CalibrationSpec

VOCABULARY = 128_256
TINY = Dimensions(layers=1, hidden=16, heads=2, kv_heads=2, ffn=32, vocab=50)


def _spec(dims: Dimensions = TINY, seq_len: int = 8) -> CalibrationSpec:
    return CalibrationSpec(
        model=dims,
        pools={},
        tensor_parallel={"a": (1,)},
        seq_len=seq_len,
        micro_batch=2,
        precisions={"a": "float32"},
        repeats=1,
    )


def _rows(monkeypatch: pytest.MonkeyPatch, spec: CalibrationSpec | None = None) -> list[TimedUnit]:
    monkeypatch.setattr(calibration.dist, "all_reduce", lambda _: None)
    return calibrate(spec or _spec(), World(CpuBackend(), RankId("a", 0), 1))


def test_each_kind_of_unit_is_timed_once_and_no_first_value_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost minutes for a large vocabulary, and a time does not depend on them."""
    monkeypatch.setattr(builder, "fill_normal", lambda *_: pytest.fail("made first values"))
    rows = _rows(monkeypatch)
    assert {row.kind for row in rows} == {"embedding", "attention", "mlp", "head"}
    assert all(row.forward_s > 0 and row.backward_s > 0 for row in rows)


@pytest.mark.slow
def test_of_real_chips_the_part_of_products_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuBackend, "start", lambda *_: Second())
    rows = _rows(monkeypatch, _spec().model_copy(update={"time_scale": 1.0}))
    whole = {row.kind: row.forward_s + row.backward_s for row in rows}
    assert all(row.products_s is not None and 0 <= row.products_s <= whole[row.kind] for row in rows)
    assert {row.kind for row in rows if not row.products_s} == {"embedding"}
    assert {row.products_s for row in _rows(monkeypatch)} == {None}, "of bare arithmetic, which emulation is paced by"


def test_inputs_and_weights_are_as_different_as_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal values flatter: products of ones switch few transistors, and all tokens would read one row."""
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    forward = HeadModule.forward

    def looked(self: HeadModule, x_BTD: torch.Tensor, batch: Any) -> Any:
        seen.append((x_BTD.detach(), batch.labels_BT, self.weight.detach()))
        return forward(self, x_BTD, batch)

    monkeypatch.setattr(HeadModule, "forward", looked)
    _rows(monkeypatch)
    x_BTD, labels_BT, weight_VD = seen[0]
    assert x_BTD.unique().numel() == x_BTD.numel()
    assert labels_BT.unique().numel() > 4
    assert weight_VD.unique().numel() == weight_VD.numel()
    assert 0.01 < weight_VD.std() < 0.04


def test_long_tensors_are_filled_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_BLOCK", 7)
    filled = passes.fill_with_noise(torch.full((3, 8), torch.nan))
    assert filled.isfinite().all()
    assert filled.unique().numel() == 7


@pytest.mark.parametrize("packed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_attention_is_timed_as_samples_are(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    """Packed ones run another operator, whose mask the first layer makes for all."""
    seen: list[AttentionMask] = []

    def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: AttentionMask) -> torch.Tensor:
        seen.append(mask)
        return operators.masked_attention(q, k, v, mask)

    monkeypatch.setattr(CpuBackend, "operators", replace(CpuBackend().operators, masked_attention=masked))
    rows = _rows(monkeypatch, _spec().model_copy(update={"packed": packed}))
    assert {row.kind for row in rows} == {"embedding", "attention", "mlp", "head"}
    assert (len(seen), len(set(seen))) == ((2, 1) if packed else (0, 0)), "a pass that does not count, and one"


class Second(Stopwatch):
    """Whatever is timed takes one."""

    def paused(self, part: float) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> None:
        pass

    def seconds(self) -> float:
        return 1.0


@pytest.mark.slow
def test_a_large_vocabulary_takes_little_memory_and_time_and_counts_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of 2 x 2048 tokens would take 2 GB, several times over, in each rank at once."""
    passed: list[float] = []
    forward = HeadModule.forward

    def counted(self: HeadModule, x_BTD: Any, batch: Any) -> Any:
        passed.append(batch.labels_BT.numel() * self.weight.numel())
        assert passed[-1] < 1e10, "multiplications of one forward"
        assert batch.labels_BT.numel() * self.weight.shape[0] < 1e8, "logits"
        return forward(self, x_BTD, batch)

    monkeypatch.setattr(HeadModule, "forward", counted)
    monkeypatch.setattr(CpuBackend, "start", lambda *_: Second())
    dims = TINY.model_copy(update={"vocab": VOCABULARY})
    head = next(row for row in _rows(monkeypatch, _spec(dims, 2048)) if row.kind == "head")
    whole = 2 * 2048 * VOCABULARY * dims.hidden
    assert head.forward_s == pytest.approx(whole / passed[0] / 2), "seconds of one of two sequences"


def test_all_of_a_pool_keep_the_limits_of_the_chip_with_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """They measure together: with limits of their own their collectives would not fit each other."""

    def least(mine: torch.Tensor, op: object) -> None:
        assert op == calibration.dist.ReduceOp.MIN
        mine.clamp_(max=8e9)

    monkeypatch.setattr(calibration.dist, "all_reduce", least)
    chip = SimpleNamespace(device=torch.device("meta"), usable_bytes=lambda: 16 << 30)
    assert calibration.limits_of(chip).bytes == 1e9  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_profile_times_strategies_and_micro_batches_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_HOST_LIMITS", Limits(1e10, 45e3))
    rows = _rows(monkeypatch, _spec().model_copy(update={"strategies": True, "also": (1, 2, 4, 64)}))
    sizes = {kind: [row.micro_batch for row in rows if row.kind == kind] for kind in ("attention", "mlp")}
    assert sizes == {"attention": [2, 1, 4], "mlp": [2, 1, 4]}
    layers = [row for row in rows if row.kind in sizes and row.micro_batch == 2]
    assert all(row.input_s and row.weight_s and row.selective_s and row.full_s for row in layers)
    assert {row.full_s for row in rows if row.kind in ("embedding", "head")} == {None}, "nothing to make again"


def test_before_a_run_no_more_than_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(monkeypatch)
    assert {(row.micro_batch, row.input_s, row.selective_s, row.repeats) for row in rows} == {(2, None, None, 1)}
