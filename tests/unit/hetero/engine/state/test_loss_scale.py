from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetero.engine.state.loss_scale import LossScale, told
from hetero.monitoring.record import UNSCALED
from hetero.words.options import LossScaleOptions

FACTS = {"step": 7, "epoch": 0}
STEPS = st.lists(st.booleans() | st.just(False), max_size=60)


def _scale(initial: float = 1024.0, grow_every: int = 3, **kept: float) -> LossScale:
    return LossScale.of(LossScaleOptions(initial=initial, grow_every=grow_every), kept).where(["bfloat16", "float16"])


@given(STEPS, st.integers(1, 5))
def test_it_changes_as_torchs_does(skipped: list[bool], grow_every: int) -> None:
    initial = 2.0**70  # from where it comes neither to its least nor to its most
    theirs = torch.amp.GradScaler("cpu", init_scale=initial, growth_interval=grow_every)
    parameter = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    ours = LossScale(LossScaleOptions(grow_every=grow_every), initial, used=True)
    for each in skipped:
        parameter.grad = torch.full((1,), float("inf") if each else 1.0)
        theirs.scale(torch.ones(1))
        theirs.step(optimizer)
        theirs.update()
        ours = ours.after(each)
        assert ours.value == theirs.get_scale()
        assert ours.good_steps == theirs._get_growth_tracker()


@given(STEPS, STEPS)
def test_a_checkpoint_keeps_all_of_it(before: list[bool], after: list[bool]) -> None:
    """Also over steps of a plan without float16."""
    through = _scale()
    for each in before:
        through = through.after(each)
    without = _scale(initial=2.0, **through.kept()).where(["float32"]).after(True)
    assert without.value == UNSCALED
    resumed = _scale(initial=2.0, **without.kept())
    for each in after:
        through, resumed = through.after(each), resumed.after(each)
        assert (resumed.value, resumed.good_steps) == (through.value, through.good_steps)


def test_it_stays_within_what_float32_holds() -> None:
    small = large = _scale(initial=2.0**32, grow_every=1)
    for _ in range(200):
        small, large = small.after(True), large.after(False)
    assert small.value == UNSCALED
    assert torch.tensor(2 * large.value).isfinite()


def test_it_is_that_of_the_mean_loss() -> None:
    assert _scale(initial=4096.0).per_token(2048) == 2.0
    assert _scale().where(["bfloat16", "float32"]).per_token(2048) == 1.0


def test_a_change_is_told_and_that_it_can_fall_no_further() -> None:
    scale = _scale(initial=4.0)
    assert told(scale, scale.after(False), FACTS) == []
    (notice,) = told(scale, scale.after(True), FACTS)
    assert (notice.kind, notice.facts) == ("loss_scale", {**FACTS, "was": 4.0, "scale": 2.0})
    least = scale.after(True).after(True)
    assert [notice.kind for notice in told(scale.after(True), least, FACTS)] == ["loss_scale_least"]
    assert told(least, least.after(True), FACTS) == []


@pytest.mark.parametrize("options", [{"initial": 0.5}, {"grow_every": 0}, {"initial": float("inf")}])
def test_impossible_scales_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="LossScaleOptions"):
        LossScaleOptions.model_validate(options)
