"""How far a message has come, whatever the order of its frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.endpoint.receiving_end import Filling


@given(st.lists(st.integers(1, 9), max_size=12), st.randoms(use_true_random=False))
def test_the_prefix_is_what_has_come_without_a_gap(lengths: list[int], order: object) -> None:
    frames = [(sum(lengths[:n]), length) for n, length in enumerate(lengths)]
    order.shuffle(frames)  # type: ignore[attr-defined]
    filling, come = Filling(), set[int]()
    for offset, length in frames:
        filling.add(offset, length)
        come |= set(range(offset, offset + length))
        assert filling.nbytes == len(come)
        assert filling.prefix == next(n for n in range(len(come) + 1) if n not in come)
