"""First values: a function of name, seed and place in the logical tensor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.traffic import Traffic
from bridge.layout.layout import TensorLayout
from hetero.layers import initial
from hetero.layers.builder import fill
from hetero.layers.initial import fill_normal
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.normals import STEP, box_muller, mix
from hetero.layers.spec import Constant, Normal, TensorSpec
from tests.examples import out_of_100
from tests.patience import WAIT_S
from tests.unit.hetero.layers import plain_normals

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _part(
    name: str, shape: tuple[int, ...], region: Any, seed: int = 0, std: float = 1.0, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    made = torch.full([stop - start for start, stop in region], torch.nan, dtype=dtype)
    fill_normal(made, name, seed, shape, region, std)
    return made


def _whole(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return _part(name, shape, [(0, size) for size in shape], seed).numpy()


def test_words_are_the_known_answers_of_splitmix64() -> None:
    words = torch.arange(1, 6) * STEP + 1234567
    mix(words, torch.empty_like(words))
    assert [int(word) % 2**64 for word in words] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_values_stay_what_they_are() -> None:
    """Pinned: a change here changes every run that anyone has on record."""
    found = _whole("units.1.q.weight", (2, 3), seed=7)
    assert found.tobytes().hex() == "1b756dbf611f92be682b3d3f727d293f15f5db3ec3c511bf"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (7,), (3, 5), (5, 3, 129), (300, 1001)], ids=str)
def test_they_are_what_plain_arithmetic_says(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = _part("w", shape, [(0, size) for size in shape], 3, 0.02, dtype)
    assert torch.equal(found, torch.from_numpy(plain_normals.whole("w", shape, 3, 0.02)).to(dtype))


def test_extreme_words_make_normals_that_are_finite_and_plain_arithmetic_too() -> None:
    ends = np.array([0, 1, 2**22, 2**23 - 2, 2**23 - 1], np.uint64)
    fractions = (ends + (ends[:, None] << np.uint64(32))).reshape(-1)
    words = (fractions | (np.arange(4, dtype=np.uint64)[:, None] << np.uint64(62))).reshape(-1)
    given = torch.from_numpy(words.view(np.int64))
    found = box_muller(given, torch.empty_like(given), torch.empty((5, len(given))), 1.0)
    for made, plain in zip(found, plain_normals.normals(words, np.float32(1)), strict=True):
        np.testing.assert_array_equal(made, plain)
        assert np.abs(plain).max() < 6


def test_the_polynomials_are_close_to_what_they_stand_for() -> None:
    low = np.arange(0, 2**23, 97, dtype=np.uint64)
    high = low * np.uint64(0x10DCD) & np.uint64(2**23 - 1)
    first, second = plain_normals.normals(low | high << np.uint64(32), np.float32(1))
    radius = np.sqrt(-2 * np.log((low + 0.5) / 2**23))
    angle = (high / 2**23 - 0.5) * np.pi / 2 - np.pi / 4
    assert np.abs(first / radius - np.cos(angle)).max() < 2e-5
    assert np.abs(second / radius + np.sin(angle)).max() < 2e-5


@out_of_100(60)
@given(data=st.data(), shape=st.lists(st.integers(1, 13), min_size=1, max_size=3))
def test_any_slice_equals_the_slice_of_the_whole(data: st.DataObject, shape: list[int]) -> None:
    region = []
    for size in shape:
        start = data.draw(st.integers(0, size - 1))
        region.append((start, data.draw(st.integers(start + 1, size))))
    whole = _whole("w", tuple(shape), 1)[tuple(slice(*bounds) for bounds in region)]
    np.testing.assert_array_equal(_part("w", tuple(shape), region, 1), whole)


def test_a_long_slice_is_made_in_parts_that_do_not_show() -> None:
    found = _part("w", (3000, 70), [(1711, 2999), (3, 70)])
    np.testing.assert_array_equal(found, plain_normals.whole("w", (3000, 70))[1711:2999, 3:])


def test_a_slice_of_no_element_is_left_alone() -> None:
    assert _part("w", (4, 6), [(2, 2), (0, 6)]).shape == (0, 6)


@pytest.mark.slow
def test_moments_and_tails_are_normal() -> None:
    x = _whole("w", (2000, 1000)).astype(np.float64)
    n = x.size
    assert abs(x.mean()) < 4 / n**0.5
    for power, moment, spread in ((2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((x**power).mean() - moment) < 4 * (spread / n) ** 0.5
    for limit, share in ((1, 0.317310508), (2, 0.045500264), (3, 0.002699796), (4, 6.3342e-5)):
        assert abs((np.abs(x) > limit).mean() - share) < 4 * (share / n) ** 0.5
    assert 4.5 < np.abs(x).max() < 7


@pytest.mark.parametrize("first", [0, 1])
def test_the_distribution_is_normal(first: int) -> None:
    """Kolmogorov and Smirnov's distance, of either normal of a pair: above 1.95 / sqrt(n) once in a thousand."""
    x = torch.from_numpy(_whole("w", (1000, 1000))[:, first::2]).double().flatten().sort().values
    n = len(x)
    found = torch.special.ndtr(x) - torch.arange(n, dtype=torch.float64) / n
    assert max(found.max(), 1 / n - found.min()) < 1.95 / n**0.5


@pytest.mark.slow
def test_neighbours_names_and_seeds_are_independent() -> None:
    x = _whole("a", (1000, 1000)).astype(np.float64)
    for other in (
        np.roll(x, 1, 0),
        *(np.roll(x, shift, 1) for shift in (1, 2, 3, 4)),
        _whole("b", (1000, 1000)),
        _whole("a", (1000, 1000), seed=1),
    ):
        assert abs((x * other).mean()) < 5e-3
        assert abs((x**2 * other.astype(np.float64) ** 2).mean() - 1) < 1.5e-2


@pytest.mark.parametrize("tp", [1, 2, 3, 4])
@pytest.mark.parametrize("dim", [0, 1])
def test_ranks_together_have_the_whole(tp: int, dim: int) -> None:
    spec = TensorSpec("w", TensorLayout.split((10, 9), dim, tp), Normal(0.5))
    parts = [torch.empty(spec.layout.local_shape(rank)) for rank in range(tp)]
    for rank, part in enumerate(parts):
        fill(part, spec, spec.layout.region(rank), seed=0)
    np.testing.assert_array_equal(torch.cat(parts, dim).numpy(), _whole("w", (10, 9)) * np.float32(0.5))


def test_constant() -> None:
    part = torch.empty(3)
    fill(part, TensorSpec("w", TensorLayout.replicated((3,), 2), Constant(1.0)), ((0, 3),), seed=0)
    assert part.tolist() == [1.0] * 3


def test_threads_share_a_tensor_and_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    alone = _whole("w", (256, 2048))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    at_work: set[int] = set()
    make, together = initial.Normals.make, threading.Barrier(2, timeout=WAIT_S)

    def noted(*args: Any) -> Any:
        if threading.get_ident() not in at_work:
            at_work.add(threading.get_ident())
            if len(at_work) <= 2:
                together.wait()
        return make(*args)

    monkeypatch.setattr(initial.Normals, "make", noted)
    np.testing.assert_array_equal(_whole("w", (256, 2048)), alone)
    assert len(at_work) > 1


Change = Callable[[torch.Tensor], None]
CHIP = torch.device("cuda")


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Change]]:
    """What happens to the sample of a chip, which is made after the host's; the CPU stands for either."""
    changes: list[Change] = []
    samples: list[torch.Tensor] = []
    make = initial._make

    def made(table: torch.Tensor, *rest: Any) -> None:
        make(table, *rest)
        samples.append(table)
        for change in changes if len(samples) == 2 else ():
            change(table)

    monkeypatch.setattr(initial, "_make", made)
    monkeypatch.setattr(torch, "empty_like", lambda like, device: torch.empty(like.shape, dtype=like.dtype))
    initial.host_makes.cache_clear()
    yield changes
    initial.host_makes.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_chip_is_trusted_if_its_bits_are_the_hosts(dtype: torch.dtype, chip: list[Change]) -> None:
    assert initial.host_makes(CHIP, dtype) == ""


def test_one_bit_is_enough_not_to_trust_it(chip: list[Change]) -> None:
    chip.append(lambda table: table[3, 5].view(torch.int32).bitwise_xor_(1))
    assert initial.host_makes(CHIP, torch.float32) == "its bits are not the host's"


def test_nor_is_one_that_lacks_an_operator(chip: list[Change]) -> None:
    def lacks(table: torch.Tensor) -> None:
        raise NotImplementedError("aten::bitwise_right_shift")

    chip.append(lacks)
    assert initial.host_makes(CHIP, torch.float32) == "aten::bitwise_right_shift"


def test_what_a_chip_cannot_make_comes_from_the_host_in_bounded_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[int] = []
    make = initial._make
    monkeypatch.setattr(initial, "host_makes", lambda *_: "it is told so")
    monkeypatch.setattr(initial, "_CARRIED", 1000)
    monkeypatch.setattr(initial, "_make", lambda table, *rest: carried.append(table.numel()) or make(table, *rest))
    found = _part("w", (300, 70), [(1, 300), (3, 70)], dtype=torch.bfloat16)
    monkeypatch.undo()
    assert torch.equal(found, _part("w", (300, 70), [(1, 300), (3, 70)], dtype=torch.bfloat16))
    assert sum(carried) == found.numel()
    assert max(carried) <= 1000


@pytest.mark.slow
def test_a_part_costs_few_operators_that_all_chips_have_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads and writes memory once, so that on a chip they are made at the speed of its memory."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    target = torch.empty((64, 4096))
    with LiveBytes() as live, Traffic() as traffic:
        fill_normal(target, "w", 0, (64, 4096), [(0, 64), (0, 4096)], 0.02)
    parts = target.numel() // 2 // initial._HOST_PAIRS
    assert len(traffic.operators) < 90 * parts
    assert traffic.bytes < 430 * target.numel()
    assert not {name for name in traffic.operators if any(word in name for word in ("div", "sqrt", "addc", "log"))}
    assert live.peak < 1.1 * 36 * initial._HOST_PAIRS
