"""Overflow on a chip whose results do not show it."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hetero.engine.state.update import StepUpdate


@pytest.mark.parametrize(("is_float16", "hidden", "bad"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_the_chip_is_believed_though_all_gradients_are_finite(is_float16: bool, hidden: bool, bad: int) -> None:
    update: Any = SimpleNamespace(
        _is_float16=is_float16,
        loss_scale=8.0,
        _backend=SimpleNamespace(overflowed=lambda: hidden),
        _meter=SimpleNamespace(mark=lambda _: nullcontext()),
        _totals=SimpleNamespace(sum=lambda mine: mine),
    )
    update._overflowed = partial(StepUpdate._overflowed, update)
    sums = {"w": torch.tensor([3.0, 4.0])}
    assert StepUpdate._agree(update, sums, torch.tensor(3.0), 2, hold=False) == (8.0, 3.0, 2.0, 25.0, bad, 0.0)
