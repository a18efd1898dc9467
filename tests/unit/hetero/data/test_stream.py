"""Samples of a file of tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hetero.data.batches import micro_batch
from hetero.data.errors import DataError
from hetero.data.options import DataOptions
from hetero.data.order import SampleOrder
from hetero.data.source import prepare
from hetero.data.stream import TokenStream, token_type

VOCAB = 257


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.arange(32, dtype=token_type(VOCAB)).tofile(tmp_path / "tokens.bin")
    return tmp_path / "tokens.bin"


def test_samples_lie_side_by_side_and_labels_are_one_on(path: Path) -> None:
    stream = TokenStream(path, 5, VOCAB)
    assert len(stream) == 6
    for index in range(6):
        tokens, labels, *_ = stream.sequence(index)
        assert tokens.tolist() == list(range(5 * index, 5 * index + 5))
        assert labels.tolist() == list(range(5 * index + 1, 5 * index + 6))


@pytest.mark.parametrize(("seq_len", "samples"), [(31, 1), (30, 1), (16, 1), (15, 2), (1, 31)])
def test_number_of_whole_samples(path: Path, seq_len: int, samples: int) -> None:
    stream = TokenStream(path, seq_len, VOCAB)
    assert len(stream) == samples
    assert len(stream.sequence(samples - 1)[1]) == seq_len
    with pytest.raises(IndexError):
        stream.sequence(samples)
    with pytest.raises(IndexError):
        stream.sequence(-1)


def test_too_long_a_sample(path: Path) -> None:
    with pytest.raises(DataError, match="a sample needs 33"):
        TokenStream(path, 32, VOCAB)


@pytest.mark.parametrize("content", [None, b"", b"abc"])
def test_no_file_of_tokens(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "broken").write_bytes(content)
    with pytest.raises(DataError, match="is no file of tokens"):
        TokenStream(tmp_path / "broken", 1, VOCAB)


def test_fingerprint_is_the_prepared_one(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text")
    prepared = prepare(DataOptions(source=str(tmp_path / "text"), seq_len=4), tmp_path / "made")
    assert TokenStream(prepared.path, 4, prepared.vocab).fingerprint() == prepared.fingerprint
    assert TokenStream(prepared.path, 3, prepared.vocab).fingerprint() != prepared.fingerprint


def test_a_micro_batch_is_consecutive_samples_of_the_order(path: Path) -> None:
    stream, order = TokenStream(path, 5, VOCAB), SampleOrder(0, 6)
    batch = micro_batch(stream, order, 4, 3)
    wanted = [stream.sequence(order.index(position)) for position in (4, 5, 6)]
    assert batch.tokens_BT.dtype == batch.labels_BT.dtype == torch.int64
    assert batch.tokens_BT.tolist() == [tokens.tolist() for tokens, *_ in wanted]
    assert batch.labels_BT.tolist() == [labels.tolist() for _, labels, *_ in wanted]


def test_shares_of_any_plan_are_the_same_samples(path: Path) -> None:
    stream, order = TokenStream(path, 5, VOCAB), SampleOrder(3, 6)
    whole = micro_batch(stream, order, 12, 8).tokens_BT
    for sizes in ([8], [5, 3], [1, 2, 2, 3], [1] * 8):
        firsts = np.cumsum([12, *sizes[:-1]]).tolist()
        parts = [micro_batch(stream, order, first, size).tokens_BT for first, size in zip(firsts, sizes, strict=True)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("vocab", [257, 1 << 16, (1 << 16) + 1, 128_256, 1 << 31])
def test_every_symbol_of_a_vocabulary_comes_back(tmp_path: Path, vocab: int) -> None:
    wanted = [0, vocab - 1, 1, vocab // 2, vocab - 2]
    np.array(wanted, token_type(vocab)).tofile(tmp_path / "tokens.bin")
    batch = micro_batch(TokenStream(tmp_path / "tokens.bin", 4, vocab), SampleOrder(0, 1), 0, 1)
    assert batch.tokens_BT.tolist() == [wanted[:-1]]
    assert batch.labels_BT.tolist() == [wanted[1:]]


def test_fingerprints_stay_what_they_are(path: Path) -> None:
    """Pinned: checkpoints know their text by them."""
    assert TokenStream(path, 5, VOCAB).fingerprint() == "dd8b1ef564022b4de51226db7a0101e1"
    assert TokenStream(path, 5, 1 << 17).fingerprint() != "dd8b1ef564022b4de51226db7a0101e1"
