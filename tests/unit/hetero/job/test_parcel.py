"""What travels with a job: it must be whole, and load where it arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hetero.job import parcel
from hetero.job.errors import JobError
from hetero.job.load import load_job
from tests.architecture.tree import ROOT

AUTO = ROOT / "configs" / "runs" / "auto.yaml"


def test_a_parcel_runs_without_this_checkout(tmp_path: Path) -> None:
    """The packages in it come first, and its job is the one that was packed."""
    job = load_job(AUTO)
    parcel.pack(job, tmp_path)
    script = (
        "import hetero.cli.app, bridge, configs; from hetero.job.load import load_job; "
        "print(hetero.__file__, bridge.__file__, *configs.__path__, load_job('job.yaml').fingerprint(), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[-1] == job.fingerprint()
    assert said[0].startswith(str(tmp_path))
    assert said[1].startswith(str(tmp_path))
    assert said[2].startswith(str(tmp_path))
    assert load_job(tmp_path / "job.yaml") == job
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize("folder", [False, True])
def test_local_data_goes_along(tmp_path: Path, folder: bool) -> None:
    source, target = tmp_path / "corpus", tmp_path / "parcel"
    target.mkdir()
    if folder:
        (source / "deep").mkdir(parents=True)
        (source / "deep" / "a.txt").write_text("text")
        (source / ".hidden").write_text("secret")
    else:
        source.write_text("text")
    parcel.pack(load_job(AUTO, [f"data.source={source}"]), target)
    assert load_job(target / "job.yaml").data.source == "data/corpus"
    found = target / "data" / "corpus"
    assert (found / "deep" / "a.txt" if folder else found).read_text() == "text"
    assert not (found / ".hidden").exists()


def test_data_of_the_cluster_keeps_its_path(tmp_path: Path) -> None:
    parcel.pack(load_job(AUTO, ["data.source=/shared/corpus"]), tmp_path)
    assert load_job(tmp_path / "job.yaml").data.source == "/shared/corpus"
    assert not (tmp_path / "data").exists()


def test_too_much_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "MOST_DATA_BYTES", 1 << 20)
    source, target = tmp_path / "corpus", tmp_path / "parcel"
    source.write_bytes(bytes(3 << 20))
    target.mkdir()
    with pytest.raises(JobError, match="3 MiB is too large"):
        parcel.pack(load_job(AUTO, [f"data.source={source}"]), target)
