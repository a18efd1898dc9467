"""Terms that multiply to the MFU, whatever a step was made of."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.monitoring.errors import MonitorError
from hetero.monitoring.waterfall import Computing, Term, TimeSpent, waterfall

PART = st.floats(0, 1)
KNOWN = st.builds(Computing, st.none() | PART, st.none() | st.floats(0, 0.4), st.floats(0, 0.4))
SPENT = st.builds(TimeSpent, st.floats(0.05, 1), st.none() | PART, PART, PART, PART)
STEP = TimeSpent(computing=0.8, optimizer=0.05, bubble=0.08, bridge=0.04, host=0.03)


def _ideal(spent: TimeSpent, computing: Computing, rate: float) -> float:
    """The MFU of chips that reach a part of their peak in what they compute once."""
    parts = spent.computing, spent.optimizer or 0.0, spent.bubble, spent.bridge, spent.host
    return rate * spent.computing * (1 - computing.recompute - (computing.tensor_parallel or 0.0)) / sum(parts)


def _factors(terms: tuple[Term, ...]) -> dict[str, float]:
    return {term.name: term.factor for term in terms}


@given(SPENT, KNOWN, st.floats(0.01, 0.99))
def test_terms_lie_in_0_to_1_and_multiply_to_the_mfu(spent: TimeSpent, computing: Computing, rate: float) -> None:
    mfu = _ideal(spent, computing, rate)
    terms = waterfall(mfu, spent, computing)
    assert all(0 < term.factor <= 1 for term in terms)
    assert prod(term.factor for term in terms) == pytest.approx(mfu, rel=1e-9)
    assert terms[-1].left == pytest.approx(mfu, rel=1e-9)
    assert [term.left for term in terms] == sorted((term.left for term in terms), reverse=True)


@given(SPENT, KNOWN, st.floats(0.01, 0.99), st.sampled_from(["bubble", "bridge", "host"]), st.floats(0.01, 1))
def test_who_waits_longer_has_a_smaller_term_and_a_smaller_mfu(
    spent: TimeSpent, computing: Computing, rate: float, wait: str, more: float
) -> None:
    worse = replace(spent, **{wait: getattr(spent, wait) + more})
    before, after = (waterfall(_ideal(one, computing, rate), one, computing) for one in (spent, worse))
    assert _factors(after)[wait] < _factors(before)[wait]
    assert after[-1].left < before[-1].left
    inside = [term for term in before if term.name not in ("bubble", "bridge", "optimizer", "host")]
    assert [term.factor for term in after[: len(inside)]] == pytest.approx([term.factor for term in inside])


def test_each_cause_has_the_term_that_arithmetic_gives() -> None:
    """100 s of chips: 40 s at the peak, 50 of products, 14 other operators, 8 spoken, 8 again; 5 update, 15 waits."""
    terms = waterfall(0.4, STEP, Computing(products=0.625, tensor_parallel=0.1, recompute=0.1))
    assert _factors(terms) == pytest.approx(
        {
            "products": 40 / 50, "other operators": 50 / 64, "tensor parallel": 64 / 72, "recompute": 72 / 80,
            "bubble": 80 / 88, "bridge": 88 / 92, "optimizer": 92 / 97, "host": 97 / 100,
        }
    )  # fmt: skip
    assert [term.left for term in terms[:2]] == pytest.approx([40 / 50, 40 / 64])


@pytest.mark.parametrize(
    ("known", "optimizer", "first"),
    [
        (Computing(), 0.05, ["products, other operators, tensor parallel", "recompute"]),
        (Computing(), None, ["products, other operators, tensor parallel, optimizer", "recompute"]),
        (Computing(tensor_parallel=0.0), 0.05, ["products, other operators", "tensor parallel", "recompute"]),
        (Computing(products=0.7), 0.05, ["products", "other operators, tensor parallel", "recompute"]),
        (Computing(0.7, 0.1), None, ["products", "other operators, optimizer", "tensor parallel", "recompute"]),
    ],
)
def test_what_is_not_told_apart_is_one_term(known: Computing, optimizer: float | None, first: list[str]) -> None:
    terms = waterfall(0.4, replace(STEP, optimizer=optimizer), known)
    last = ["bubble", "bridge", *(["optimizer"] if optimizer else []), "host"]
    assert [term.name for term in terms] == [*first, *last]


def test_what_was_measured_elsewhere_takes_no_more_than_the_step_leaves() -> None:
    assert _factors(waterfall(0.4, STEP, Computing(tensor_parallel=0.9)))["tensor parallel"] == pytest.approx(0.5)
    assert _factors(waterfall(0.4, STEP, Computing(products=1.2)))["other operators, tensor parallel"] == 1
    assert _factors(waterfall(0.4, STEP, Computing(products=0.1)))["products"] == 1


def test_a_chip_faster_than_its_data_sheet_is_told_so() -> None:
    with pytest.raises(MonitorError, match="no faster than the peak of its data sheet"):
        waterfall(0.9, STEP, Computing())
