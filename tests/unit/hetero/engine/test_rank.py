"""What a rank lets go of between two epochs."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

from bridge.rank import RankId
from hetero.engine.rank import Rank


class Held:
    """As an epoch's tensors are: reached by what they themselves reach."""

    def __init__(self) -> None:
        self.itself = self

    def close(self) -> None: ...


def test_what_an_epoch_held_is_gone_before_the_next_is_built() -> None:
    nothing: Any = SimpleNamespace(end_epoch=lambda: None, close_epoch=lambda number: None)
    rank = Rank(RankId("n", 0), nothing, nothing)
    rank._world, rank._number = nothing, 0
    rank._epoch = held = Held()  # type: ignore[assignment]
    alive = weakref.ref(held)
    del held
    gc.disable()
    try:
        rank._end_epoch()
        assert alive() is None
    finally:
        gc.enable()
