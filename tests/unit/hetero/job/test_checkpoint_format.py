"""Which jobs' checkpoints are models' directories too."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.huggingface.folder import CONFIG, INDEX
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.run.model import checkpoint_directory, keep_model
from tests.architecture.tree import ROOT
from tests.tiny_models import tiny
from tests.unit.hetero.huggingface.written import write_folder

AUTO = ROOT / "configs" / "runs" / "auto.yaml"
LORA, STORE, OURS = "train.lora={rank: 2}", "checkpoint.storage=memory://saved", "checkpoint.format=hetero"


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "text").write_text("some text")
    write_folder(tmp_path / "m", config={**tiny("llama").values, "vocab_size": 257})
    return f"model={{hf: {tmp_path / 'm'}}}"


def _job(tmp_path: Path, *settings: str) -> Job:
    return load_job(AUTO, [f"data={{source: {tmp_path / 'text'}, tokenizer: bytes, seq_len: 4}}", *settings])


@pytest.mark.parametrize(("settings", "is_one"), [((), True), ((LORA,), False), ((STORE,), False), ((OURS,), False)])
def test_of_a_directory_comes_one(settings: tuple[str, ...], is_one: bool, model: str, tmp_path: Path) -> None:
    assert _job(tmp_path, model, *settings).saves_directory == is_one


def test_of_our_own_sizes_only_if_asked(model: str, tmp_path: Path) -> None:
    assert not _job(tmp_path).saves_directory
    assert _job(tmp_path, "checkpoint.format=hf").saves_directory


@pytest.mark.parametrize(("setting", "why"), [(LORA, "adapters are trained"), (STORE, "a store cannot take")])
def test_what_cannot_be_one_is_refused(setting: str, why: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=why) as raised:
        _job(tmp_path, model, "checkpoint.format=hf", setting)
    assert raised.value.key == "checkpoint.format"


def test_what_a_run_keeps_lies_beside_the_weights(model: str, tmp_path: Path) -> None:
    (tmp_path / "m" / "generation_config.json").write_text("{}")
    job = _job(tmp_path, model)
    (tmp_path / "run").mkdir()
    keep_model(job, tmp_path / "run")
    found = checkpoint_directory(job, tmp_path / "run")
    assert found is not None
    (tmp_path / "step").mkdir()
    found.write(tmp_path / "step")
    assert {path.name for path in (tmp_path / "step").iterdir()} == {CONFIG, INDEX, "generation_config.json"}
