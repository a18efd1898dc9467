"""Copies within memory, by two threads where that pays: one alone does not use what the memory can do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

_SPLIT_BYTES = 4 << 20  # from here on two threads are faster than one


def copy(target: memoryview, source: memoryview) -> None:
    """`target[:] = source`, for bytes."""
    if len(source) < _SPLIT_BYTES:
        target[:] = source
        return
    half = len(source) // 2
    rest = _helper().submit(_copy, target[half:], source[half:])
    _copy(target[:half], source[:half])
    rest.result()


def _copy(target: memoryview, source: memoryview) -> None:
    import numpy as np  # long to load, and few endpoints need it

    np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))  # lets the other thread run


@cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "bridge-copy")
