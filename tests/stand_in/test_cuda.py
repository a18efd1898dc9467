"""CUDA's and Kunlun's own code on a machine that has no such chip, with `torch.cuda` over the CPU: what is copied
beside compute is copied as late as it may be, so whoever does not wait reads what was there before.

It says nothing of CUDA, NCCL, torch_xmlir or BKCL. See docs/hardware.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.options import EmulateOptions
from hetero.data.source import Prepared
from hetero.words.pool import Pool
from tests.distributed.beside_plain import trains_as_plain
from tests.distributed.cases import MOMENTUM, Case, _case, a1, k1, k2, n1, n2, pipeline
from tests.distributed.fleet import Standing
from tests.patience import RUN_S
from tests.stand_in.cuda import machine
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
    "ascend": Pool("ascend", "ascend", "Ascend-910B2", 1, emulate=EmulateOptions()),
}
CASES = (
    _case("tp 2 to tp 2", pipeline(4, n2(0, 3), k2(3, 6), micro_batch=2)),
    _case(
        "three families, bfloat16", pipeline(4, n1(0, 2, optimizer="host"), k1(2, 4), a1(4, 6)), precision="bfloat16"
    ),
    _case(
        "pp 2 and dp 2, momentum",
        pipeline(4, n1(0, 3, optimizer="host"), n1(3, 6)),
        pipeline(2, k1(0, 6, optimizer="host")),
        optimizer=MOMENTUM,
    ),
    _case("tp 2 and a bridge, float16", pipeline(4, k2(0, 3), n1(3, 6)), precision="float16"),
)


@pytest.mark.parametrize("family", ["cuda", "kunlun"])
def test_the_contract_of_backends(family: str) -> None:
    """Every case of the suite."""
    suite = ["tests/contract/test_backends.py", "-k", f"{family} and not emulated"]
    told = run(["-m", "pytest", "-rs", "-p", "no:cacheprovider", *suite], machine.environment(family), RUN_S)
    passed, skipped = outcome(told)
    assert passed >= 26, told
    assert skipped == [f"{family} is here"]


def test_a_host_says_whose_chips_these_are() -> None:
    told = json.loads(run(["-c", LOOK], machine.environment("kunlun"), RUN_S))
    found = {family: (chips, note) for family, chips, note in told}
    assert found["kunlun"] == (2, "copies run beside compute")
    assert found["cuda"][0] == 0


@pytest.fixture(scope="module")
def fleet(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    variables = {name: machine.environment(POOLS[name].family) for name in ("nvidia", "kunlun")}
    with Standing(text, tmp_path_factory.mktemp("fleet"), POOLS, variables).up() as standing:
        yield standing


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equal_training(case: Case, fleet: Standing, text: Prepared, tmp_path: Path) -> None:
    trains_as_plain(case, fleet, text, tmp_path)
