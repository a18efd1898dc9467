"""Exact shares: how many micro-batches each pipeline takes, so that the last one to end ends as early as can be."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import floor


def shares(fill_s: Sequence[float], seconds: Sequence[float], micro_batches: int) -> tuple[int, ...]:
    """Micro-batches per pipeline, at least 1 each, minimising max(fill_s[i] + m[i] * seconds[i]).

    Each next micro-batch goes where it ends first, which is optimal since no end ever shrinks. All that end before the
    bound of divisible work are handed out at once. Raises ValueError for fewer micro-batches than pipelines.
    """
    if micro_batches < len(seconds):
        raise ValueError(f"{micro_batches} micro-batches cannot give {len(seconds)} pipelines one each")
    counts = _before_bound(fill_s, seconds, micro_batches)
    heap = [(fill + (n + 1) * each, i) for i, (fill, each, n) in enumerate(zip(fill_s, seconds, counts, strict=True))]
    heapq.heapify(heap)
    for _ in range(micro_batches - sum(counts)):
        _, i = heap[0]
        counts[i] += 1
        heapq.heapreplace(heap, (fill_s[i] + (counts[i] + 1) * seconds[i], i))
    return tuple(counts)


def _before_bound(fill_s: Sequence[float], seconds: Sequence[float], micro_batches: int) -> list[int]:
    pairs = list(zip(fill_s, seconds, strict=True))
    if min(seconds) > 0:
        bound = (micro_batches + sum(fill / each for fill, each in pairs)) / sum(1 / each for each in seconds)
        counts = [max(1, floor((bound - fill) / each)) for fill, each in pairs]
        if sum(counts) <= micro_batches:
            return counts
    return [1] * len(pairs)
