"""The Ascend path over the vendor's own wheel, on a machine that has no such chip: what torch_npu is asked for exists,
takes these arguments, and is called in an order that its streams, allocator and process groups accept.

It says nothing of the chip's arithmetic or speed. See docs/hardware.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.chip import MIB, load_chip
from backends.options import EmulateOptions
from balancer.memory.memory import stage_bytes
from hetero.data.source import Prepared
from hetero.models.registry import architecture
from hetero.words.pool import Pool
from tests.distributed.beside_plain import trains_as_plain
from tests.distributed.cases import ADAMW, ROWS, SOME, Case, a1, a2, case_of, n1, pipeline
from tests.distributed.fleet import SEQ_LEN, Run, Standing
from tests.patience import RUN_S, WAIT_S
from tests.stand_in.ascend import machine
from tests.stand_in.processes import outcome, run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(machine.why_not()), reason=machine.why_not())]

LAUNCHES = "tests/stand_in/ascend/launches.py"
ONLY_A_CHIP_SHOWS = ("a_rate_that_a_chip_can_have", "do_not_hold_up_the_host", "do_not_wait_for_compute")
"""Tests of tests/device that need arithmetic beside the host's own."""

POOLS = {
    "ascend": Pool("ascend", "ascend", "Ascend-910B2", 2),
    "nvidia": Pool("nvidia", "cuda", "A800-80G", 1, emulate=EmulateOptions()),
}
CASES = (
    case_of("one chip", pipeline(4, a1(0, 6), micro_batch=2)),
    case_of("one chip, bfloat16", pipeline(4, a1(0, 6), micro_batch=2), precision="bfloat16"),
    case_of("one chip, float16", pipeline(4, a1(0, 6), micro_batch=2), precision="float16"),
    case_of("dp 2, AdamW", pipeline(2, a1(0, 6)), pipeline(2, a1(0, 6)), optimizer=ADAMW),
    case_of("a bridge to an emulated pool", pipeline(4, a1(0, 3), n1(3, 6))),
    case_of("tp 2", pipeline(4, a2(0, 6))),
    case_of("pp 2", pipeline(4, a1(0, 3), a1(3, 6))),
    case_of("dp 2", pipeline(2, a1(0, 6)), pipeline(2, a1(0, 6))),
    case_of("tp 2 and a bridge, bfloat16", pipeline(4, a2(0, 3), n1(3, 6)), precision="bfloat16"),
    case_of("tp 2 and a bridge, float16", pipeline(4, a2(0, 3), n1(3, 6)), precision="float16"),
    case_of("tp 2, rows in slices, some made again", pipeline(4, a2(0, 6, **ROWS, tp_slices=2, recompute=SOME))),
    case_of(
        "zero bubble, optimizer on the host",
        pipeline(4, a1(0, 3, optimizer="host"), a1(3, 6, optimizer="host", recompute="full")),
        schedule="zero-bubble",
        optimizer=ADAMW,
    ),
    case_of(
        "v, selective, a bridge, bfloat16",
        pipeline(4, a1(0, 2, 5, 6, recompute="selective"), n1(2, 5)),
        schedule="v",
        precision="bfloat16",
    ),
    case_of("interleaved", pipeline(4, a1(0, 2, 4, 5, optimizer="host"), a1(2, 4, 5, 6)), schedule="interleaved"),
)

ANOTHER_TIME = ("one chip", "one chip, bfloat16", "one chip, float16", "a bridge to an emulated pool", "interleaved")
"""What is in another case as well."""


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    return [pytest.mark.exhaustive] if case.name in ANOTHER_TIME else []


def test_the_contract_of_backends(tmp_path: Path) -> None:
    """Every case of the suite, on the wheel."""
    suites = ["tests/contract/test_backends.py", "tests/contract/test_operators.py", "tests/device", LAUNCHES]
    chosen = "ascend and not emulated" + "".join(f" and not {name}" for name in ONLY_A_CHIP_SHOWS)
    environment = machine.environment(ASCEND_STAND_IN_CALLS=f"{tmp_path}/calls")
    done = run(["-m", "pytest", "-rs", "-p", "no:cacheprovider", "-k", chosen, *suites], environment, RUN_S)
    passed, skipped = outcome(done)
    assert passed >= 60, done
    assert skipped == ["ascend is here"], "all that can run here runs"
    told = run(["-m", "tests.stand_in.ascend.called", f"{tmp_path}/calls"], machine.environment(), WAIT_S)
    assert {"aclrtHostRegisterV2", "aclrtMemcpyAsync", "aclrtStreamWaitEvent", "HcclAllReduce"} <= set(
        re.findall(r"\w+", told)
    )
    print(f"{passed} passed", told)


@pytest.fixture(scope="module")
def fleet(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    variables = {"ascend": machine.environment()}
    with Standing(text, tmp_path_factory.mktemp("fleet"), POOLS, variables).up() as standing:
        yield standing


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=_marks(case)) for case in CASES])
def test_equal_training(case: Case, fleet: Standing, text: Prepared, tmp_path: Path) -> None:
    run = trains_as_plain(case, fleet, text, tmp_path)
    if case.name in ("tp 2", "pp 2", "dp 2"):
        _chips_held_what_plans_count(case, run)


def _chips_held_what_plans_count(case: Case, run: Run) -> None:
    """By the driver, communicators and all, give or take what an allocator of 20 MiB segments rounds up."""
    told = [notice for notice in run.told if notice.kind == "memory_used"]
    job, plan, chip = case.job, case.job.complete(case.plan), load_chip("Ascend-910B2")
    work = architecture(job.dimensions).workload(SEQ_LEN, job.train.global_batch, job.train.precision)
    assert {(notice.data["pipeline"], notice.data["stage"]) for notice in told} == {place for place, _ in plan.stages()}
    for notice in told:
        need = stage_bytes(work, plan, notice.data["pipeline"], notice.data["stage"], "float32", chip)
        assert need.communicators > 0
        assert abs(notice.data["held_bytes"] - need.total) < 40 * MIB, (need, notice.data)


def test_goes_on_to_the_bit_from_a_checkpoint(fleet: Standing, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "pp 2")
    first = fleet.train(case.job, case.plan, until=2, save_to=tmp_path)
    second = fleet.train(case.job, case.plan, start=2, begin_from=tmp_path)
    whole = fleet.train(case.job, case.plan)
    assert first.losses + second.losses == whole.losses
    assert first.norms + second.norms == whole.norms
