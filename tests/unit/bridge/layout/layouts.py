"""Random layouts: any boxes that tile a tensor, each on some positions, and positions that hold nothing."""

from __future__ import annotations

from hypothesis import strategies as st

from bridge.layout.layout import Region, Shape, TensorLayout, whole


@st.composite
def tilings(draw: st.DrawFn, shape: Shape, most: int = 4) -> list[Region]:
    """Boxes that a tensor is cut into, again and again, along any of its dimensions."""
    parts = [whole(shape)]
    for _ in range(draw(st.integers(0, most - 1))):
        box = parts.pop(draw(st.integers(0, len(parts) - 1)))
        cuts = [(dim, at) for dim, (start, stop) in enumerate(box) for at in range(start + 1, stop)]
        if not cuts:
            parts.append(box)
            break
        dim, at = draw(st.sampled_from(cuts))
        start, stop = box[dim]
        parts += [(*box[:dim], (start, at), *box[dim + 1 :]), (*box[:dim], (at, stop), *box[dim + 1 :])]
    return parts


@st.composite
def layouts(draw: st.DrawFn, shape: Shape, most: int = 6) -> TensorLayout:
    """Over up to `most` positions in any order; gradients are summed only where each part has as many replicas."""
    parts: list[Region | None] = list(draw(tilings(shape, min(4, most))))
    room = most - len(parts)
    if draw(st.booleans()):
        held = parts * draw(st.integers(1, most // len(parts)))
        gradients = draw(st.sampled_from(["equal", "summed"]))
    else:
        held = parts + draw(st.lists(st.sampled_from(parts), max_size=room))
        gradients = "equal"
    nothing = [None] * draw(st.integers(0, min(2, most - len(held))))
    return TensorLayout(shape, tuple(draw(st.permutations(held + nothing))), gradients)  # type: ignore[arg-type]
