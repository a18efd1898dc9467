from __future__ import annotations

from itertools import product

import pytest
import torch

from bridge.precision import ITEM_BYTES, crossing

DTYPES = {name: getattr(torch, name) for name in ITEM_BYTES}
PAIRS = [pair for pair in product(ITEM_BYTES, ITEM_BYTES) if set(pair) != {"float16", "bfloat16"}]


def test_sizes_are_torchs() -> None:
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == ITEM_BYTES


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_receiver_gets_the_same_values_in_the_fewest_bytes(one: str, other: str) -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)).to(DTYPES[one])
    between = crossing(one, other)
    assert torch.equal(x.to(DTYPES[between]).to(DTYPES[other]), x.to(DTYPES[other]))
    assert ITEM_BYTES[between] == min(ITEM_BYTES[one], ITEM_BYTES[other])


def test_a_chip_meets_no_bfloat16_where_it_computes_in_float16() -> None:
    assert crossing("bfloat16", "float16") == crossing("float16", "bfloat16") == "float16"
