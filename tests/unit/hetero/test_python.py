"""`hetero.train`: jobs as programs have them, and mistakes in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import hetero
import hetero.python as subject
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.job import Job
from tests.architecture.markdown import read
from tests.architecture.tree import ROOT

FILE = ROOT / "configs" / "runs" / "quickstart.yaml"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been run."""
    found: list[Any] = []
    monkeypatch.setattr(subject, "run", lambda *what, **how: found.append((what, how)))
    return found


def test_a_file_a_job_and_plain_data_are_one_job(ran: list[Any]) -> None:
    data, callback = yaml.safe_load(FILE.read_text()), print
    hetero.train(FILE, "here", on_step=callback)
    hetero.train(str(FILE), "here", on_step=callback)
    hetero.train(load_job(FILE), "here", on_step=callback)
    hetero.train({"name": "quickstart", **data}, Path("here"), on_step=callback)
    assert ran == [ran[0]] * 4
    (job, folder), how = ran[0]
    assert isinstance(job, Job)
    assert folder == Path("here")
    assert how["on_record"] is callback


def test_a_run_without_a_folder_has_one_of_its_own(ran: list[Any]) -> None:
    hetero.train(FILE)
    hetero.train(FILE)
    (_, first), (_, second) = (what for what, _ in ran)
    assert first != second
    assert first.parent == second.parent == Path("runs")


def test_a_mistake_explains_itself(ran: list[Any]) -> None:
    data = yaml.safe_load(FILE.read_text())
    with pytest.raises(JobError, match=r"train\.stepz") as caught:
        hetero.train({**data, "train": {**data["train"], "stepz": 3}})
    assert caught.value.key == "train.stepz"
    with pytest.raises(JobError, match="model"):
        hetero.train({})
    assert not ran


def test_the_package_alone_is_light() -> None:
    seen = "import sys, hetero; sys.exit(bool({'ray', 'torch', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", seen], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="nothing"):
        _ = hetero.nothing


def test_the_page_s_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = read(ROOT / "docs" / "python.md").in_language("python")
    line, values = {"step": 0, "loss": 5.5, "tokens_per_s": 1e3}, dict[str, Any]()

    def run(job: Job, folder: Path, *, on_record: Any, **_: Any) -> Any:
        on_record(line)
        return SimpleNamespace(run_dir=folder)

    monkeypatch.setattr(subject, "run", run)
    exec(block.text, values)
    assert values["losses"] == [5.5]
    assert str(values["summary"].run_dir).startswith("runs/from-python-")
