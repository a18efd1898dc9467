"""Copies within memory, by two threads where that pays: one alone does not use what the memory can do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

_PIECE_BYTES = 1 << 20
_SPLIT_BYTES = 4 << 20  # from here on two threads are faster than one


def copy(target: memoryview, source: memoryview) -> None:
    """`target[:] = source`, for bytes. Both threads take piece after piece, so that a helper who comes late, or finds
    no core free, only helps less: it is waited for no longer than one piece takes."""
    if len(source) < _SPLIT_BYTES:
        target[:] = source
        return
    starts = iter(range(0, len(source), _PIECE_BYTES))  # `next` of it is one step, which no other thread divides
    help_ = _helper().submit(_copy_pieces, target, source, starts)
    _copy_pieces(target, source, starts)
    if not help_.cancel():
        help_.result()


def _copy_pieces(target: memoryview, source: memoryview, starts: Iterator[int]) -> None:
    import numpy as np  # long to load, and few endpoints need it

    into, out_of = np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8)
    for start in starts:
        piece = slice(start, start + _PIECE_BYTES)
        np.copyto(into[piece], out_of[piece])  # lets the other thread run


@cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "bridge-copy")
