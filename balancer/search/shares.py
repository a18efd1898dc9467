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


def uneven_shares(
    fill_s: Sequence[float], seconds: Sequence[float], sizes: Sequence[int], sequences: int
) -> tuple[int, ...] | None:
    """The same for micro-batches of unlike sizes, that hold so many sequences in all: None where none do. Where sizes
    differ this is close to the best, not always the best."""
    if len(set(sizes)) == 1:
        each = sequences // sizes[0]
        return shares(fill_s, seconds, each) if sequences % sizes[0] == 0 and each >= len(sizes) else None
    pipelines = list(zip(fill_s, seconds, sizes, strict=True))
    bound = (sequences + sum(fill / each * n for fill, each, n in pipelines)) / sum(
        n / each for _, each, n in pipelines
    )
    counts = [max(1, floor((bound - fill) / each)) for fill, each, _ in pipelines]
    for _ in range(4 * len(sizes) + max(sizes)):
        missing = sequences - sum(n * count for n, count in zip(sizes, counts, strict=True))
        if missing == 0:
            return tuple(counts)
        _move(counts, pipelines, missing)
    return None


def _move(counts: list[int], pipelines: Sequence[tuple[float, float, int]], missing: int) -> None:
    """One micro-batch more where that ends first, of those that are missed, or one less where the last one ends."""
    ends = [fill + count * each for (fill, each, _), count in zip(pipelines, counts, strict=True)]
    fitting = [i for i, (_, _, n) in enumerate(pipelines) if n <= abs(missing)]
    if missing > 0:
        i = min(fitting or range(len(ends)), key=lambda i: ends[i] + pipelines[i][1])
        counts[i] += 1
    else:
        several = [i for i in fitting if counts[i] > 1] or [i for i in range(len(ends)) if counts[i] > 1]
        if several:
            counts[max(several, key=lambda i: ends[i])] -= 1
