"""What is timed in place of a micro-batch."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.engine.trial import Limits, Trial
from hetero.models.dimensions import Dimensions

PAPER = Dimensions(layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128_256)
HOST = Limits(1e10, 256e6)
KINDS = ("embedding", "attention", "mlp", "head")


def _whole(kind: str, tp: int = 1, precision: str = "bfloat16", dims: Dimensions = PAPER) -> Trial:
    return Trial(dims, kind, tp, precision, sequences=4, seq_len=4096)


@pytest.mark.parametrize("kind", KINDS)
def test_what_keeps_the_limits_is_timed_as_it_is(kind: str) -> None:
    whole = _whole(kind)
    assert whole.within(Limits(inf, 80e9)) == whole
    assert whole.shares_of(whole) == (1, 1)


def test_logits_are_not_too_much_for_one_chip() -> None:
    """4 x 4096 tokens of 128,256 entries are 2.1e9 logits, of which a slice is there at a time."""
    assert _whole("head").within(Limits(inf, 4e9)) == _whole("head")


def test_a_share_of_a_backward_counts_what_it_makes_again() -> None:
    """So few tokens need no slices of their logits, and no product twice."""
    whole = _whole("head")
    assert replace(whole, seq_len=64).shares_of(whole) == (1 / 64, 2 / 3 / 64)


@pytest.mark.slow
@given(
    kind=st.sampled_from(KINDS),
    tp=st.sampled_from([1, 2, 8]),
    precision=st.sampled_from(["float32", "bfloat16"]),
    vocab=st.integers(2, 300_000),
    sequences=st.integers(1, 9),
    seq_len=st.integers(1, 10_000),
)
def test_a_trial_keeps_the_hosts_limits_as_far_as_it_goes(
    kind: str, tp: int, precision: str, vocab: int, sequences: int, seq_len: int
) -> None:
    dims = PAPER.model_copy(update={"vocab": vocab, "hidden": 1024, "ffn": 2816})
    whole = Trial(dims, kind, tp, precision, sequences, seq_len)
    trial = whole.within(HOST)
    tokens = trial.sequences * trial.seq_len
    assert trial.sequences >= 1
    assert tokens >= min(32, sequences * seq_len)
    assert 3 * trial.sequences * trial.work.forward_flops / tp <= HOST.flops
    assert 2 * trial.work.parameters * 2 / tp <= HOST.bytes
    assert all(0 < share <= 1 for share in trial.shares_of(whole))


def test_a_share_is_by_products_and_so_by_the_square_of_the_tokens_where_attention_is() -> None:
    whole = _whole("attention")
    half = replace(whole, seq_len=2048)
    assert all(1 / 4 < share < 1 / 2 for share in half.shares_of(whole))
    assert replace(whole, sequences=1).shares_of(whole) == (1 / 4, 1 / 4)


def test_a_share_of_an_embedding_is_by_tokens_and_vocabulary() -> None:
    whole = _whole("embedding")
    assert replace(whole, seq_len=1024).shares_of(whole) == (1 / 4, 1 / 4)
    smaller = whole.within(HOST)
    assert smaller.model.vocab == PAPER.vocab // 16
    assert smaller.shares_of(whole) == (1 / 16, 1 / 16)


@pytest.mark.parametrize(("paced_s", "times"), [(0.0, 32), (0.1, 32), (0.5, 8), (2.0, 5)])
def test_an_emulated_chip_is_passed_for_some_seconds_but_a_few_times_at_least(paced_s: float, times: int) -> None:
    assert _whole("attention").repeats(Limits(inf, 80e9), 32, paced_s) == times
