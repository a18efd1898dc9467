"""How documents make samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.data.documents.packing import packed

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=40)


def _ends(lengths: list[int]) -> np.ndarray:
    return np.cumsum(lengths).astype(np.uint64)


def _fits(pieces: np.ndarray, seq_len: int) -> bool:
    samples = pieces[:, 0]
    used = np.bincount(samples, pieces[:, 2])
    return bool((np.diff(samples) >= 0).all() and (used <= seq_len).all() and (used > 0).all())


@given(lengths=LENGTHS, seq_len=st.integers(1, 30), pack=st.booleans())
def test_texts_are_cut_and_every_position_is_there_once(lengths: list[int], seq_len: int, pack: bool) -> None:
    found = packed(_ends(lengths), seq_len, whole=False, pack=pack)
    assert found.truncated == 0
    assert found.dropped == sum(length < 2 for length in lengths)
    if len(found.pieces):
        assert _fits(found.pieces, seq_len)
    there = [start + i for _, start, length in found.pieces.tolist() for i in range(length)]
    ends = np.cumsum(lengths).tolist()
    wanted = [at for end, length in zip(ends, lengths, strict=True) for at in range(end - length, end - 1)]
    assert sorted(there) == wanted
    if pack:
        assert there == wanted
        used = np.bincount(found.pieces[:, 0], found.pieces[:, 2]) if len(found.pieces) else np.zeros(0)
        assert (used[:-1] == seq_len).all(), "full, but for the last"


@given(lengths=LENGTHS, seq_len=st.integers(1, 30), pack=st.booleans())
def test_chats_stay_whole_or_lose_their_end(lengths: list[int], seq_len: int, pack: bool) -> None:
    found = packed(_ends(lengths), seq_len, whole=True, pack=pack)
    begins = {end - length: length - 1 for end, length in zip(np.cumsum(lengths), lengths, strict=True) if length > 1}
    assert {start: length for _, start, length in found.pieces.tolist()} == {
        start: min(length, seq_len) for start, length in begins.items()
    }
    assert found.truncated == sum(length > seq_len for length in begins.values())
    if len(found.pieces):
        assert _fits(found.pieces, seq_len)
        assert pack or len(set(found.pieces[:, 0])) == len(found.pieces)


def test_what_is_left_without_an_answer_is_dropped_and_counted() -> None:
    learnt = np.array([0, 0, 0, 1, 0, 0, 1], np.uint8)  # of 4 and 3 tokens
    found = packed(_ends([4, 3]), 2, whole=True, pack=True, learnt=learnt)
    assert found.pieces.tolist() == [[0, 4, 2]]
    assert found.note(2) == "1 documents without a token to learn were left out"
    whole = packed(_ends([4, 3]), 3, whole=True, pack=True, learnt=learnt)
    assert whole.pieces.tolist() == [[0, 0, 3], [1, 4, 2]]


def test_little_room_is_left() -> None:
    lengths = np.random.default_rng(0).integers(20, 600, 2000)
    found = packed(np.cumsum(lengths).astype(np.uint64), 1024, whole=True, pack=True)
    n_samples = int(found.pieces[-1, 0]) + 1
    assert (lengths - 1).sum() / (n_samples * 1024) > 0.99


@pytest.mark.parametrize("pack", [True, False])
def test_truncation_is_counted(pack: bool) -> None:
    found = packed(_ends([12, 5, 30]), 8, whole=True, pack=pack)
    assert found.note(8) == "2 documents longer than 8 tokens were truncated"
