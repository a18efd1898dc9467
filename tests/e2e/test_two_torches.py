"""Two interpreters in one run: the driver's own, and one for ranks alone with another torch and no Ray."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.distributed.laws import TOLERANCES, series_deviation
from tests.e2e.command import Command, Run, short_folder
from tests.other_torch.environment import TORCH, CannotBeMade, interpreter

pytestmark = pytest.mark.exhaustive  # the first time it takes half a gigabyte from the package index
STEPS = 6
LIMIT = TOLERANCES["float32"]


@pytest.fixture(scope="module")
def other() -> Path:
    try:
        return interpreter()
    except (CannotBeMade, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"torch {TORCH} cannot be installed here: {error}")


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def _job(env: dict[str, Any]) -> dict[str, Any]:
    """Both pools hold part of a pipeline, and one of them a second one, whose gradients meet the first one's."""
    stages = [{"pool": "here", "tp": 1, "units": [0, 3]}, {"pool": "there", "tp": 2, "units": [3, 6]}]
    pool = {"family": "cpu", "chip": "cpu"}
    return {
        "model": {"dimensions": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 42, "vocab": 257}},
        "data": {"seq_len": 16},
        "train": {
            "steps": STEPS,
            "global_batch": 6,
            "optimizer": {"name": "sgd", "lr": 0.05},
            "replica_check_every": 1,
        },
        "pools": {"here": {**pool, "count": 1}, "there": {**pool, "count": 4, "env": env}},
        "balance": {
            "mode": "manual",
            "pipelines": [
                {"share": 4, "stages": stages},
                {"share": 2, "stages": [{"pool": "there", "tp": 2, "units": [0, 6]}]},
            ],
        },
        "monitor": {"port": None},
    }


def _train(place: Path, name: str, env: dict[str, Any]) -> Run:
    (place / f"{name}.yaml").write_text(yaml.safe_dump(_job(env)))
    with Command(place, "train", place / f"{name}.yaml", "--run-dir", place / name, cwd=place) as command:
        assert command.wait(300) == 0, command.output
    return Run(place / name)


def _torches(run: Run) -> dict[str, str]:
    ready = [event["data"] for event in run.events if event["kind"] == "host_ready"]
    return {data["host"]: data["software"]["torch"] for data in ready}


def test_pools_of_two_torches_train_as_those_of_one(place: Path, other: Path) -> None:
    assert subprocess.run([other, "-c", "import ray"], capture_output=True).returncode != 0
    one, two = _train(place, "one", {}), _train(place, "two", {"python": str(other)})
    torches = _torches(two)
    assert torches["there@0"].startswith(TORCH)
    assert torches["here@0"] != torches["there@0"]
    assert len(set(_torches(one).values())) == 1
    for figure, limit in (("loss", LIMIT.loss), ("grad_norm", LIMIT.norm)):
        found, wanted = ([line[figure] for line in run.metrics] for run in (two, one))
        assert len(found) == STEPS
        assert series_deviation(found, wanted).deviation <= limit
