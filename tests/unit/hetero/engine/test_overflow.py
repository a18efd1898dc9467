"""Overflow on a chip whose results do not show it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hetero.engine.epoch import Epoch


@pytest.mark.parametrize(
    ("precision", "hidden", "bad"), [("float16", True, 1), ("float16", False, 0), ("float32", True, 0)]
)
def test_the_chip_is_believed_though_all_gradients_are_finite(precision: str, hidden: bool, bad: int) -> None:
    epoch: Any = SimpleNamespace(
        _precision=precision,
        _backend=SimpleNamespace(overflowed=lambda: hidden),
        _executor=None,
        hold=False,
        _spoken=lambda executor, counted: (3.0, counted),
    )
    epoch._overflowed = partial(Epoch._overflowed, epoch)
    assert Epoch._numbers(epoch, {"w": torch.tensor([3.0, 4.0])}, 2).tolist() == [3.0, 2.0, 25.0, bad, 0.0]
