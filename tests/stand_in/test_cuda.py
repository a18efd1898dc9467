"""CUDA's and Kunlun's own code on a machine that has no such chip, with `torch.cuda` over the CPU: what is copied
beside compute is copied as late as it may be, so whoever does not wait reads what was there before.

Beside them stands a family from outside: a distribution with an entry point, a data sheet, and a backend with an
operator of its own. The contract suites run over it as over those that are built in.

It says nothing of CUDA, NCCL, torch_xmlir or BKCL. See docs/hardware.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hetero.data.source import Prepared
from hetero.words.pool import Pool
from tests.distributed.beside_plain import trains_as_plain
from tests.distributed.cases import MOMENTUM, ROWS, SOME, Case, a1, case_of, k1, k2, n1, n2, pipeline
from tests.distributed.fleet import Standing
from tests.patience import RUN_S
from tests.stand_in.cuda import machine
from tests.stand_in.outside import machine as outsiders
from tests.stand_in.processes import outcome, run

pytestmark = pytest.mark.slow
LOOK = """
import json
from backends.probe import detect
print(json.dumps([[found.family, found.chips, found.note] for found in detect()]))
"""
POOLS = {
    "nvidia": Pool("nvidia", "cuda", "A800-80G", 2),
    "kunlun": Pool("kunlun", "kunlun", "Kunlun-P800", 2),
    "ascend": Pool("ascend", "toy", "Toy-1", 1),
}
CASES = (
    case_of("tp 2 to tp 2", pipeline(4, n2(0, 3), k2(3, 6), micro_batch=2)),
    case_of("beside one from outside", pipeline(4, n1(0, 2), a1(2, 6))),
    case_of(
        "three families, bfloat16", pipeline(4, n1(0, 2, optimizer="host"), k1(2, 4), a1(4, 6)), precision="bfloat16"
    ),
    case_of(
        "pp 2 and dp 2, momentum",
        pipeline(4, n1(0, 3, optimizer="host"), n1(3, 6)),
        pipeline(2, k1(0, 6, optimizer="host")),
        optimizer=MOMENTUM,
    ),
    case_of("tp 2 and a bridge, float16", pipeline(4, k2(0, 3), n1(3, 6)), precision="float16"),
    case_of(
        "rows in slices, some made again, zero bubble",
        pipeline(4, n2(0, 3, **ROWS, recompute=SOME), k2(3, 6, **ROWS, tp_slices=2, recompute="selective")),
        schedule="zero-bubble",
    ),
)

ANOTHER_TIME = ("beside one from outside", "rows in slices, some made again, zero bubble")
"""What is in another case as well."""


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    return [pytest.mark.exhaustive] if case.name in ANOTHER_TIME else []


@pytest.mark.parametrize("families", ["cuda or toy", pytest.param("kunlun", marks=pytest.mark.exhaustive)])
def test_the_contracts_of_backends_and_operators(families: str) -> None:
    """Every case of the suites."""
    suites = ["tests/contract/test_backends.py", "tests/contract/test_operators.py", "-k"]
    family, *outside = families.split(" or ")
    environment = outsiders.environment(**machine.environment(family))
    chosen = f"({families}) and not emulated"
    told = run(["-m", "pytest", "-rs", "-p", "no:cacheprovider", *suites, chosen], environment, RUN_S)
    passed, skipped = outcome(told)
    assert passed >= 47 * len((family, *outside)), told
    assert sorted(skipped) == [f"{one} is here" for one in (family, *outside)]


def test_a_host_says_whose_chips_these_are() -> None:
    told = json.loads(run(["-c", LOOK], machine.environment("kunlun"), RUN_S))
    found = {family: (chips, note) for family, chips, note in told}
    assert found["kunlun"] == (2, "copies run beside compute; all operators are plain torch")
    assert found["cuda"][0] == 0


@pytest.fixture(scope="module")
def fleet(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    variables = {name: outsiders.environment(**machine.environment(POOLS[name].family)) for name in POOLS}
    with outsiders.installed(), Standing(text, tmp_path_factory.mktemp("fleet"), POOLS, variables).up() as standing:
        yield standing


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=_marks(case)) for case in CASES])
def test_equal_training(case: Case, fleet: Standing, text: Prepared, tmp_path: Path) -> None:
    trains_as_plain(case, fleet, text, tmp_path)
