"""A family from outside: a distribution with an entry point, a backend with an operator of its own, a data sheet. The
contract suites run over it as over those that are built in, and it trains beside another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import chip
from backends.options import EmulateOptions
from backends.registry import family_names
from hetero.data.source import Prepared
from hetero.words.pool import Pool
from tests.distributed.beside_plain import trains_as_plain
from tests.distributed.cases import _case, a1, n2, pipeline
from tests.distributed.fleet import ROOT, Standing
from tests.patience import RUN_S
from tests.stand_in.processes import outcome, run

pytestmark = pytest.mark.slow

OUTSIDE = Path(__file__).parent / "outside"
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(map(str, (OUTSIDE, ROOT))), "OMP_NUM_THREADS": "1"}
POOLS = {
    "nvidia": Pool("nvidia", "toy", "Toy-1", 2),
    "ascend": Pool("ascend", "ascend", "Ascend-910B2", 1, emulate=EmulateOptions()),
}


def test_the_contracts_of_backends_and_operators() -> None:
    suites = ["tests/contract/test_backends.py", "tests/contract/test_operators.py", "-k", "toy"]
    passed, skipped = outcome(run(["-m", "pytest", "-rs", "-p", "no:cacheprovider", *suites], ENVIRONMENT, RUN_S))
    assert passed >= 90
    assert skipped == ["toy is here"]


@pytest.fixture
def _known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """To this process, which makes the plan, as it is on every host of a run."""
    monkeypatch.syspath_prepend(str(OUTSIDE))
    chip._sheets.cache_clear()
    yield
    chip._sheets.cache_clear()


@pytest.mark.usefixtures("_known")
def test_equal_training(text: Prepared, tmp_path: Path) -> None:
    assert "toy" in family_names()
    with Standing(text, tmp_path / "fleet", POOLS, dict.fromkeys(POOLS, ENVIRONMENT)).up() as fleet:
        for precision in ("float32", "bfloat16"):
            case = _case(precision, pipeline(4, n2(0, 4), a1(4, 6)), precision=precision)
            trains_as_plain(case, fleet, text, tmp_path / precision)
