"""A run whose surroundings give it little (no home, a user whom nobody knows, few letters, a screen that is lost), or
too much: files named like modules, a shell that speaks of another Ray."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bad_input.screens import JOB, check_screen
from tests.e2e.command import ROOT, SCRIPT, Run, short_folder
from tests.patience import RUN_S
from tests.unit.hetero.cluster.onray.test_environment import OTHERS

NOBODY = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
MODULES = ("bridge", "hetero", "numpy", "ray", "torch", "types")
FEW_LETTERS = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_of_nobody_among_other_modules_and_another_ray_with_nowhere_to_print() -> None:
    if subprocess.run([*NOBODY, "true"], check=False).returncode:
        pytest.skip("this system lets nobody make a user")
    read, write = os.pipe()
    os.close(read)
    with short_folder() as place:
        (place / "text.txt").write_bytes(bytes(range(256)) * 10)
        job = JOB.replace("source: python-stdlib", f"source: {place / 'text.txt'}").replace("nvidia", "池")
        measured = job[: job.index("balance:")] + job[job.index("checkpoint:") :].replace("time_scale: 1.0", "")
        (place / "job.yaml").write_text(measured, encoding="utf-8")
        for module in MODULES:
            (place / f"{module}.py").write_text("raise RuntimeError('of the working folder')")
        run = Run(place / "run")
        ended = subprocess.run(
            [*NOBODY, SCRIPT, "train", place / "job.yaml", "--run-dir", run.folder], cwd=place, timeout=RUN_S,
            env={"PATH": os.environ["PATH"], "TMPDIR": str(place), **FEW_LETTERS, **OTHERS},
            stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        os.close(write)
        assert ended.returncode == 0, ended.stderr
        assert "standard output is lost (Broken pipe); the run goes on" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert [line["step"] for line in run.metrics] == [0, 1, 2, 3]
        (note,) = [event["data"]["note"] for event in run.events if event["kind"] == "warning"]
        assert "not kept between runs: no home is known" in note
        assert run.events[-1]["kind"] == "finished"
        assert not Path("~").exists()


@pytest.mark.slow
def test_without_any_interface_a_run_is_refused_at_once(tmp_path: Path) -> None:
    bare = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*bare, "true"], check=False).returncode:
        pytest.skip("this system lets nobody make a network")
    (tmp_path / "job.yaml").write_text(JOB)
    ended = subprocess.run(
        [*bare, SCRIPT, "train", tmp_path / "job.yaml", "--run-dir", tmp_path / "run"],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, timeout=RUN_S, check=False,
    )  # fmt: skip
    check_screen(ended.returncode, ended.stderr)
    assert "ip link set lo up" in ended.stderr
    assert not (tmp_path / "run").exists()
