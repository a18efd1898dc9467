"""A pool in bfloat16 beside one whose chips have float16 alone: planned, trained and resumed as a user would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.distributed.fleet import SEQ_LEN
from tests.distributed.laws import TOLERANCES, series_deviation
from tests.distributed.plain import plain_steps
from tests.e2e.command import Command, Run, short_folder
from tests.patience import RUN_S

STEPS, SAVED, GROW_EVERY = 10, 6, 4
JOB = {
    "model": {"dimensions": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 42, "vocab": 257}},
    "train": {
        "steps": STEPS,
        "precision": "bfloat16",
        "global_batch": 8,
        "optimizer": {"lr": 1e-3},
        "replica_check_every": 1,
        "loss_scale": {"grow_every": GROW_EVERY},
    },
    "pools": {
        "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 2, "emulate": {}},
        "old": {"family": "ascend", "chip": "Ascend-910A", "count": 1, "precision": "float16", "emulate": {}},
    },
    "checkpoint": {"every": SAVED},
    "monitor": {"port": None},
}
PIPELINES = [
    {"share": 6, "stages": [{"pool": "nvidia", "units": [0, 3]}, {"pool": "old", "units": [3, 6]}]},
    {"share": 2, "stages": [{"pool": "nvidia", "units": [0, 6]}]},
]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def job_file(place: Path) -> Path:
    text, path = place / "text.txt", place / "job.yaml"
    text.write_bytes(bytes(range(256)) * 40)
    data = {"source": str(text), "seq_len": SEQ_LEN}
    path.write_text(yaml.safe_dump({**JOB, "data": data, "balance": {"mode": "manual", "pipelines": PIPELINES}}))
    return path


def _train(job_file: Path, name: str, *more: str | Path) -> Run:
    place = job_file.parent
    with Command(place, "train", job_file, "--run-dir", place / name, *more, cwd=place) as command:
        assert command.wait(RUN_S) == 0, command.output
        return Run(place / name)


@pytest.mark.exhaustive  # without Ray `tests/distributed` has it in every run, and a resume in float16
def test_losses_stay_near_those_of_float32_also_after_a_resume(job_file: Path) -> None:
    mixed = _train(job_file, "mixed")
    stages = [stage for pipeline in mixed.json("plan.json")["pipelines"] for stage in pipeline["stages"]]
    assert [stage["precision"] for stage in stages] == ["bfloat16", "float16", "bfloat16"]
    losses = [line["loss"] for line in mixed.metrics]
    wide = [step.loss for step in plain_steps(job_file, job_file.parent / "plain")]
    assert series_deviation(losses, wide).deviation <= TOLERANCES["bfloat16"].loss
    assert losses != wide

    scales = [line["loss_scale"] for line in mixed.metrics]
    assert scales == [65536.0] * GROW_EVERY + [131072.0] * GROW_EVERY + [262144.0] * (STEPS - 2 * GROW_EVERY)
    grown = [event["step"] for event in mixed.events if event["kind"] == "loss_scale"]
    assert grown == [GROW_EVERY - 1, 2 * GROW_EVERY - 1]

    resumed = _train(job_file, "resumed", "--resume", f"{job_file.parent / 'mixed'}@{SAVED}")
    for figure in ("loss", "loss_scale", "skipped"):
        assert [line[figure] for line in resumed.metrics] == [line[figure] for line in mixed.metrics[SAVED:]]
