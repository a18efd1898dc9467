"""A run is the same wherever it is started: among files named like modules, in a shell that speaks of another Ray."""

from __future__ import annotations

import pytest

from tests.e2e.command import Command, Run, short_folder
from tests.e2e.test_ends import _job_file
from tests.unit.hetero.cluster.test_ray_environment import OTHERS

SECONDS = 100.0
MODULES = ("bridge", "hetero", "numpy", "ray", "torch", "types")


def test_a_run_among_other_modules_and_another_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    with short_folder() as place:
        job, run = _job_file(place), Run(place / "run")
        for module in MODULES:
            (place / f"{module}.py").write_text("raise RuntimeError('of the working folder')")
        few = ("--set", "train.steps=2", "--set", "checkpoint.every=0")
        with Command(place, "train", job, "--run-dir", run.folder, *few, cwd=place) as command:
            assert command.wait(SECONDS) == 0, command.output
        assert [line["step"] for line in run.metrics] == [0, 1]
