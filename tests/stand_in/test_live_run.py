"""`hetero train` as a user starts it on a host with Ascend chips: Ray, a pool of them beside an emulated one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.distributed.fleet import SEQ_LEN
from tests.distributed.laws import TOLERANCES, series_deviation
from tests.distributed.plain import plain_steps
from tests.e2e.command import Command, Run, short_folder
from tests.patience import RUN_S
from tests.stand_in.ascend import machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.exhaustive,  # such chips train without Ray, and a cluster asks them what they are, in every run
    pytest.mark.skipif(bool(machine.why_not()), reason=machine.why_not()),
]

STEPS = 5
LIMIT = TOLERANCES["float32"]
CHIP = "Ascend-910B2"
CALLS = "ASCEND_STAND_IN_CALLS"
JOB = {
    "model": {"dimensions": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 42, "vocab": 257}},
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


def _train(place: Path) -> Run:
    env = {"python": sys.executable, "vars": machine.environment(**{CALLS: f"{place}/calls"})}
    pools = {
        "huawei": {"family": "ascend", "count": 2, "env": env},
        "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 1, "emulate": {}},
    }
    text, job = place / "text.txt", place / "job.yaml"
    text.write_bytes(bytes(range(256)) * 40)
    job.write_text(yaml.safe_dump({**JOB, "data": {"source": str(text), "seq_len": SEQ_LEN}, "pools": pools}))
    with Command(place, "train", job, "--run-dir", place / "run", cwd=place) as command:
        assert command.wait(RUN_S) == 0, command.output
        return Run(place / "run")


def test_losses_are_those_of_one_plain_process(place: Path) -> None:
    run = _train(place)
    resolved = run.folder / "job.yaml"
    assert yaml.safe_load(resolved.read_text())["pools"]["huawei"]["chip"] == CHIP, "by what the chips said"
    called = set((place / "calls").read_text().split())
    assert {"aclrtHostRegisterV2", "aclrtStreamWaitEvent", "HcclAllReduce"} <= called
    found, plain = run.metrics, plain_steps(resolved, place / "plain")
    assert len(found) == STEPS
    loss = series_deviation([line["loss"] for line in found], [step.loss for step in plain])
    norm = series_deviation([line["grad_norm"] for line in found], [step.norm for step in plain])
    assert loss.deviation <= LIMIT.loss, loss
    assert norm.deviation <= LIMIT.norm, norm
