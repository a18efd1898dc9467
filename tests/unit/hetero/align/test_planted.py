"""Each planted fault is named at its unit and operator, and nothing else is blamed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero.align.aligned import AlignOptions, aligned
from hetero.align.comparison import align
from hetero.align.given_text import made_up
from hetero.align.source import source
from hetero.align.theirs import transformers_trace
from hetero.models.tolerance import TOLERANCES
from tests.unit.hetero.align.planted import PLANTED, Planted, write

EVERYWHERE = {"rope base", "norm's epsilon", "scale of scores", "cap of scores", "scale of branches"}
"""Faults of every layer."""
FIRST = [*PLANTED][:7]


def _each(more: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """The first in any case, their siblings with a mark."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in FIRST else more) for name in PLANTED]
    )


@_each(pytest.mark.slow)
def test_against_another_directory(name: str, tmp_path: Path) -> None:
    planted = PLANTED[name]
    wrong, right = write(tmp_path / "wrong", planted.kind, planted.plant), write(tmp_path / "right", planted.kind)
    faults = aligned(wrong, right, AlignOptions(samples=1, length=24)).faults
    _check(planted, faults)
    assert (len(faults) == 1) is (name not in EVERYWHERE), faults


@pytest.mark.slow
@_each(pytest.mark.exhaustive)
def test_against_transformers(name: str, tmp_path: Path) -> None:
    """Which has read the directory without the fault."""
    planted = PLANTED[name]
    wrong = source(write(tmp_path / "wrong", planted.kind, planted.plant), "--model")
    right = source(write(tmp_path / "right", planted.kind), "--against")
    if wrong.lacking():
        pytest.skip("is named before anything is computed")
    batch = made_up(right, 1, 24, 0, tmp_path).batch
    trace = transformers_trace(right, torch.float32, batch)
    _check(planted, align(wrong, right, trace, "transformers", batch, "float32", TOLERANCES["float32"]).faults)


def _check(planted: Planted, faults: list) -> None:
    assert faults, "it is not found"
    first = faults[0]
    assert (first.unit, first.operator) == (planted.unit, planted.operator), [str(fault) for fault in faults]
    assert planted.cause in first.cause
