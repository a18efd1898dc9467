"""`hetero train` as a user starts it on a host with Ascend chips: Ray, a pool of them beside an emulated one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.distributed.laws import TOLERANCES, series_deviation
from tests.e2e.command import Command, Run, short_folder
from tests.patience import RUN_S
from tests.stand_in.ascend import machine

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(machine.why_not()), reason=machine.why_not())]

STEPS = 5
LIMIT = TOLERANCES["float32"]
CHIP = "Ascend-910B2"
CALLS = "ASCEND_STAND_IN_CALLS"
JOB = {
    "model": {"dimensions": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 42, "vocab": 257}},
    "data": {"seq_len": 16},
    "train": {
        "steps": STEPS,
        "global_batch": 4,
        "optimizer": {"lr": 1e-3},
        "replica_check_every": 1,
    },
    "balance": {
        "mode": "manual",
        "pipelines": [
            {
                "share": 4,
                "stages": [{"pool": "huawei", "tp": 2, "units": [0, 3]}, {"pool": "nvidia", "units": [3, 6]}],
            }
        ],
    },
    "monitor": {"port": None},
}


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def _train(place: Path, name: str, **huawei: Any) -> Run:
    pools = {
        "huawei": {"family": "ascend", "count": 2, **huawei},
        "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 1, "emulate": {}},
    }
    job = place / f"{name}.yaml"
    job.write_text(yaml.safe_dump({**JOB, "pools": pools}))
    with Command(place, "train", job, "--run-dir", place / name, cwd=place) as command:
        assert command.wait(RUN_S) == 0, command.output
        return Run(place / name)


def test_losses_are_those_of_an_emulated_run(place: Path) -> None:
    env = {"python": sys.executable, "vars": machine.environment(**{CALLS: f"{place}/calls"})}
    real, emulated = _train(place, "real", env=env), _train(place, "emulated", chip=CHIP, emulate={})
    job = yaml.safe_load((real.folder / "job.yaml").read_text())
    assert job["pools"]["huawei"]["chip"] == CHIP, "by what the chips said of themselves"
    called = set((place / "calls").read_text().split())
    assert {"aclrtHostRegisterV2", "aclrtStreamWaitEvent", "HcclAllReduce"} <= called
    for figure, limit in (("loss", LIMIT.loss), ("grad_norm", LIMIT.norm)):
        found, wanted = ([line[figure] for line in run.metrics] for run in (real, emulated))
        assert len(found) == STEPS
        assert series_deviation(found, wanted).deviation <= limit
