"""Documents as samples of one length.

A position is a token that has a next one in its document, which is its label; a document of n tokens has n - 1. A piece
is some consecutive positions of one document. A sample is pieces, side by side; what is left of it is padding.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """Each row of `pieces` is a sample's number, the piece's first token, and how many positions it has, by sample.
    `truncated` documents have lost their end, `dropped` ones are not there at all."""

    pieces: Ints
    truncated: int = 0
    dropped: int = 0

    def note(self, seq_len: int) -> str:
        """What was lost, in words; empty if nothing was."""
        told = {
            f"documents longer than {seq_len} tokens were truncated": self.truncated,
            "documents without a token to learn were left out": self.dropped,
        }
        return "; ".join(f"{count:,} {what}" for what, count in told.items() if count)


def packed(ends: npt.NDArray[np.uint64], seq_len: int, *, whole: bool, pack: bool,
           learnt: npt.NDArray[np.uint8] | None = None) -> Packed:  # fmt: skip
    """`ends` are the documents' own, in tokens. A document longer than a sample is truncated where documents are to
    stay `whole`, else cut into several pieces. What then has no token to learn is dropped."""
    stops = ends.astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), stops[:-1]])[: len(stops)]
    positions = np.maximum(stops - starts - 1, 0)
    if not whole:
        used = positions > 0
        pieces = (_run_on if pack else _cut)(starts[used], positions[used], seq_len)
        return Packed(pieces, dropped=int((~used).sum()))
    kept = (positions > 0) & _has_learnt(starts, np.minimum(positions, seq_len), learnt)
    starts, positions = starts[kept], positions[kept]
    lengths = np.minimum(positions, seq_len)
    samples = _best_fit(lengths, seq_len) if pack else np.arange(len(lengths))
    order = np.argsort(samples, kind="stable")
    pieces = np.stack([samples, starts, lengths], axis=1)[order]
    return Packed(pieces, int((positions > seq_len).sum()), int((~kept).sum()))


def _run_on(starts: Ints, positions: Ints, seq_len: int) -> Ints:
    """All positions one after another, cut where a document or a sample begins."""
    begins = np.cumsum(positions) - positions
    cuts = np.union1d(begins, np.arange(0, int(positions.sum()), seq_len))
    document = np.searchsorted(begins, cuts, "right") - 1
    lengths = np.diff(np.append(cuts, positions.sum()))
    return np.stack([cuts // seq_len, starts[document] + cuts - begins[document], lengths], axis=1)


def _cut(starts: Ints, positions: Ints, seq_len: int) -> Ints:
    """Each document by itself, in as many samples as it needs."""
    counts = -(-positions // seq_len)
    document = np.repeat(np.arange(len(counts)), counts)
    inside = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * seq_len
    lengths = np.minimum(positions[document] - inside, seq_len)
    return np.stack([np.arange(len(document)), starts[document] + inside, lengths], axis=1)


def _has_learnt(starts: Ints, lengths: Ints, learnt: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.bool_]:
    """Whether any label of the document's first positions is learnt."""
    found = np.ones(len(starts), bool)
    if learnt is not None:
        for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            found[number] = learnt[start + 1 : start + 1 + length].any()
    return found


def _best_fit(lengths: Ints, room: int) -> Ints:
    """The sample of each document: the longest come first, and each goes where it leaves the least room."""
    samples, n_samples = np.zeros(len(lengths), np.int64), 0
    by_room: dict[int, list[int]] = defaultdict(list)
    rooms: list[int] = []
    for document in np.argsort(-lengths, kind="stable"):
        length = int(lengths[document])
        at = bisect_left(rooms, length)
        if at == len(rooms):
            sample, left, n_samples = n_samples, room - length, n_samples + 1
        else:
            found = rooms[at]
            sample, left = by_room[found].pop(), found - length
            if not by_room[found]:
                del rooms[at]
        samples[document] = sample
        if left:
            if not by_room[left]:
                insort(rooms, left)
            by_room[left].append(sample)
    return samples
