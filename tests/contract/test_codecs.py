"""One suite for every codec: sizes as promised, errors within the bound, nothing clipped in silence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bridge.codec import BLOCK, CODECS, UNDERFLOW, Codec
from hetero.layers.live_bytes import LiveBytes
from hetero.transfer.codecs import Float8, Int8, kernel, worst_error
from tests.examples import out_of_100

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = (0, 1, 2, 255, 256, 257, 1000, 1024 * BLOCK, 1024 * BLOCK + 300)
ALL = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)
WITH_SCALES = [codec for codec in CODECS.values() if codec.has_scales]


def encoded(codec: Codec, x: torch.Tensor) -> torch.Tensor:
    """The bytes, in memory that holds exactly as many, after bytes that must stay."""
    size = codec.encoded_bytes(x.numel(), str(x.dtype).removeprefix("torch."))
    data = torch.full((size + 16,), 0xAB, dtype=torch.uint8)
    kernel(codec.name, CPU).encode(x, data[:size])
    assert (data[size:] == 0xAB).all(), "wrote past its end"
    return data[:size]


def there_and_back(codec: Codec, x: torch.Tensor) -> torch.Tensor:
    decoded = torch.full_like(x, math.nan)
    kernel(codec.name, CPU).decode(encoded(codec, x), decoded)
    return decoded


def allowed(codec: Codec, x: torch.Tensor) -> torch.Tensor:
    """The largest error of each value that the codec promises."""
    padded = torch.nn.functional.pad(x.double().abs(), (0, -x.numel() % BLOCK)).view(-1, BLOCK)
    largest = padded.amax(dim=1, keepdim=True) if x.numel() else padded[:, :1]
    return (codec.error_bound * largest + UNDERFLOW).expand_as(padded).reshape(-1)[: x.numel()]


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_any_size(codec: Codec, dtype: torch.dtype, size: int) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    decoded = there_and_back(codec, x)
    rounding = 0 if dtype is torch.float32 else x.double().abs() * 2**-8
    assert ((decoded.double() - x.double()).abs() <= allowed(codec, x) + rounding).all()
    assert worst_error(x, decoded) <= codec.error_limit, "Gaussian values pass the gate"


FINITE = st.floats(-(2.0**127), 2.0**127, width=32)
MAGNITUDES = st.builds(lambda sign, exponent: sign * 10.0**exponent, st.sampled_from([-1, 1]), st.floats(-45, 38))
ROWS = arrays(np.float32, st.integers(0, BLOCK + 40), elements=FINITE | MAGNITUDES | st.just(0.0))


@pytest.mark.slow
@ALL
@out_of_100(30)
@given(row=ROWS)
def test_no_error_is_above_the_bound(codec: Codec, row: np.ndarray) -> None:
    x = torch.from_numpy(row)
    assert ((there_and_back(codec, x).double() - x.double()).abs() <= allowed(codec, x)).all()


@ALL
def test_a_bound_is_not_much_too_wide(codec: Codec) -> None:
    """Somewhere in a dense row of values the error comes near to what is promised."""
    x = torch.linspace(-1, 1, 400 * BLOCK)
    worst = ((there_and_back(codec, x).double() - x.double()).abs() / allowed(codec, x)).max()
    assert codec.error_bound == 0 or worst > 0.6


@pytest.mark.parametrize("name", ["none", "bf16"])
@out_of_100(30)
@given(row=ROWS)
def test_what_bfloat16_can_hold_comes_back_as_it_was(name: str, row: np.ndarray) -> None:
    x = torch.from_numpy(row).bfloat16().float()
    assert torch.equal(there_and_back(CODECS[name], x), x)


@ALL
def test_small_whole_numbers_with_a_full_scale_come_back_as_they_were(codec: Codec) -> None:
    row = torch.arange(-15, 17.0).repeat(BLOCK // 32)
    row[0] = 127 if codec.name == "int8" else 448 if codec.name == "fp8" else 1
    assert torch.equal(there_and_back(codec, row), row)


@ALL
def test_the_same_values_give_the_same_bytes(codec: Codec) -> None:
    x = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    first, again = encoded(codec, x).clone(), encoded(codec, x.clone())
    assert torch.equal(first, again)


@ALL
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 300, 599])
def test_what_is_not_finite_stays_so_and_at_most_its_block_does(codec: Codec, bad: float, place: int) -> None:
    x = torch.ones(600)
    x[place] = bad
    decoded = there_and_back(codec, x)
    if codec.has_scales:
        block = slice(place // BLOCK * BLOCK, (place // BLOCK + 1) * BLOCK)
        assert not decoded[block].isfinite().any()
        decoded[block], x[block] = 1.0, 1.0
        assert torch.allclose(decoded, x, atol=codec.error_bound)
    else:
        assert torch.equal(decoded.isnan(), x.isnan())
        assert torch.equal(decoded.isinf(), x.isinf())


@pytest.mark.parametrize("codec", WITH_SCALES, ids=lambda codec: codec.name)
def test_what_is_not_finite_shows_in_the_measured_error_where_it_costs_others(codec: Codec) -> None:
    x = torch.ones(2 * BLOCK)
    x[7] = math.nan
    assert worst_error(x, there_and_back(codec, x)) == pytest.approx(1 - 1 / BLOCK)
    x[:BLOCK] = math.inf
    assert worst_error(x, there_and_back(codec, x)) < codec.error_limit, "nobody else was in that block"


@pytest.mark.parametrize("codec", WITH_SCALES, ids=lambda codec: codec.name)
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3.4e38, -3.4e38])
def test_the_ends_of_the_range(codec: Codec, value: float) -> None:
    x = torch.full((BLOCK,), value)
    decoded = there_and_back(codec, x)
    assert decoded.isfinite().all()
    assert ((decoded.double() - x.double()).abs() <= allowed(codec, x)).all()


@pytest.mark.parametrize("codec", WITH_SCALES, ids=lambda codec: codec.name)
def test_an_outlier_shows_in_the_measured_error_however_large_it_is(codec: Codec) -> None:
    x = torch.randn(8 * BLOCK, generator=torch.Generator().manual_seed(2))
    for outlier in (1e6, 1e12, 1e30):
        x[3 * BLOCK + 7] = outlier
        assert worst_error(x, there_and_back(codec, x)) > 0.9 > codec.error_limit
        assert worst_error(x, there_and_back(CODECS[codec.safer], x)) <= CODECS[codec.safer].error_limit


def test_the_measured_error_of_zeros_and_of_nothing_is_none() -> None:
    assert worst_error(torch.zeros(0), torch.zeros(0)) == 0
    assert worst_error(torch.zeros(9), torch.zeros(9)) == 0
    assert worst_error(torch.ones(BLOCK), torch.zeros(BLOCK)) == 1


@pytest.mark.slow
@ALL
def test_a_kernel_keeps_what_plans_count_for_it(codec: Codec) -> None:
    made = {"int8": Int8, "fp8": Float8}
    x = torch.ones(100 * BLOCK)
    with LiveBytes() as live:
        fresh = made[codec.name](CPU) if codec.name in made else kernel(codec.name, CPU)
        data, before = torch.empty(codec.encoded_bytes(len(x), "float32"), dtype=torch.uint8), live.now
        fresh.encode(x, data)
        fresh.decode(data, x)
        assert live.now - before == codec.scratch_bytes(len(x))
