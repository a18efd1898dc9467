"""The precisions that chips compute in, and in which of two a tensor crosses between them."""

from __future__ import annotations

ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
"""The narrowest first; of equal ones, the one that every chip has."""


def crossing(one: str, other: str) -> str:
    """What a tensor travels in between pools of these precisions, in either direction: the narrower of the two.

    The receiver rounds to its own precision in any case, so it gets the same values as if the wider one had travelled,
    in fewer bytes. Between float16 and bfloat16 it is float16, for the chip at that end may not know the other.
    """
    return min(one, other, key=list(ITEM_BYTES).index)
