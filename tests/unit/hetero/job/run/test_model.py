"""A job on a model's directory, before its first step and when the directory has gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from hetero.errors import render
from hetero.huggingface.errors import HfError
from hetero.huggingface.folder import HfFolder
from hetero.job.doctor import examine_job
from hetero.job.errors import JobError
from hetero.job.file.load import load_job, recorded_job
from hetero.job.job import Job
from hetero.job.planning.plan_job import plan_job
from hetero.job.run.model import checked_weights, keep_model, kept_files, recorded_model
from hetero.models.hf_model import HfModel
from hetero.models.registry import weights
from tests.unit.hetero.cluster.doctor.machines import GOOD
from tests.unit.hetero.huggingface.written import write_folder

CONFIG: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip


def _written(folder: Path, **changes: Any) -> Path:
    config = CONFIG | changes
    shapes = weights(HfModel.of(config)).foreign
    return write_folder(folder, {name: torch.randn(shape) for name, shape in shapes.items()}, config)


def _job(folder: Path, *settings: str, **model: Any) -> Job:
    """Its file lies in `folder`, beside the model's directory."""
    job = {
        "model": {"hf": "tiny", **model},
        "data": {"seq_len": 4},
        "train": {"steps": 4, "global_batch": 2},
        "pools": {"here": {"family": "cpu", "count": 2}},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    return load_job(folder / "job.yaml", settings)


def test_a_directory_lies_beside_the_job_file(tmp_path: Path) -> None:
    here = _written(tmp_path / "tiny")
    job = _job(tmp_path)
    assert job.model.hf == str(here)
    shared = checked_weights(job)
    assert shared is not None
    assert (shared.named, shared.fingerprint) == (str(here), HfFolder(here).fingerprint)
    assert checked_weights(_job(tmp_path, init="random")) is None


def test_a_mistake_in_it_is_told_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        _job(tmp_path)
    assert (raised.value.key, raised.value.line) == ("model.hf", 2)
    _written(tmp_path / "tiny")
    for changes, word in (({"vocab_size": 200}, "257 symbols"), ({"model_type": "lama"}, "did you mean llama")):
        write_folder(tmp_path / "tiny", config=CONFIG | changes)
        with pytest.raises(JobError) as raised:
            _job(tmp_path)
        assert word in render(raised.value)
        assert raised.value.line is not None


def test_a_pool_that_cannot_cut_it(tmp_path: Path) -> None:
    _written(tmp_path / "tiny", num_attention_heads=1)
    with pytest.raises(JobError, match="does not divide") as raised:
        _job(tmp_path, "pools.here.tp=2")
    assert raised.value.remedy == "set it to 1, or to auto"


@pytest.mark.parametrize(("kind", "key"), [("llama", "num_hidden_layers"), ("gpt2", "n_layer")])
def test_layers_are_counted_before_they_are_listed(kind: str, key: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "tiny", config={"model_type": kind, "vocab_size": 300, key: 10**9})
    with pytest.raises(JobError, match="at most 1000 layers"):
        _job(tmp_path)


def test_a_sample_is_no_longer_than_the_positions_that_a_model_has_learnt(tmp_path: Path) -> None:
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 7}
    write_folder(tmp_path / "tiny", config={"model_type": "gpt2", "vocab_size": 300, **sizes})
    with pytest.raises(JobError, match="has learnt 7 positions") as raised:
        _job(tmp_path, "data.seq_len=8")
    assert raised.value.key == "data.seq_len"
    _job(tmp_path, "data.seq_len=7")


def test_weights_that_do_not_fit_stop_a_run_and_no_plan(tmp_path: Path) -> None:
    write_folder(tmp_path / "tiny", config=CONFIG)
    job = _job(tmp_path)
    with pytest.raises(HfError, match="missing: "):
        checked_weights(job)
    found = next(one for one in examine_job(job, GOOD, tmp_path / "run") if one.check == "model.hf")
    assert found.level == "error"


def test_the_doctor_says_who_serves_the_model(tmp_path: Path) -> None:
    here = _written(tmp_path / "tiny")
    found = next(one for one in examine_job(_job(tmp_path), GOOD, tmp_path / "run") if one.check == "model")
    assert (found.level, found.value) == ("ok", f"llama of {here}, from its weights")
    assert "native provider" in found.rule


def test_a_run_keeps_what_belongs_to_the_model(tmp_path: Path) -> None:
    here, run_dir = _written(tmp_path / "tiny"), tmp_path / "run"
    (here / "tokenizer.json").write_text("{}")
    run_dir.mkdir()
    job = _job(tmp_path)
    keep_model(job, run_dir)
    (run_dir / "job.yaml").write_text(yaml.safe_dump(job.resolved()))
    shutil.rmtree(here)
    assert {path.name for path in kept_files(run_dir)} == {"config.json", "tokenizer.json"}
    assert recorded_model(run_dir) == HfModel.of(CONFIG)
    assert recorded_job(run_dir).model.resolve() == HfModel.of(CONFIG)


@pytest.mark.parametrize("said", [None, "bytes", "other"])
def test_a_run_keeps_the_tokenizer_of_its_text(said: str | None, tmp_path: Path) -> None:
    here, run_dir, other = _written(tmp_path / "tiny"), tmp_path / "run", tmp_path / "other"
    for folder, text in ((here, "{}"), (other, '{"other": 1}')):
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(text)
    (here / "chat_template.jinja").write_text("of tiny")
    (other / "config.json").write_text("of no model")
    run_dir.mkdir()
    settings = {None: [], "bytes": ["data.tokenizer=bytes"], "other": [f"data.tokenizer={other}"]}[said]
    keep_model(_job(tmp_path, *settings), run_dir)
    kept = {path.name: path.read_text() for path in kept_files(run_dir)}
    assert kept.pop("config.json") == (here / "config.json").read_text()
    own = {"tokenizer.json": "{}", "chat_template.jinja": "of tiny"}
    assert kept == {None: own, "bytes": {}, "other": {"tokenizer.json": '{"other": 1}'}}[said]


def test_a_run_of_our_own_sizes_keeps_its_tokenizer(tmp_path: Path) -> None:
    _written(tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer.json").write_text("{}")
    (run_dir := tmp_path / "run").mkdir()
    job = _job(tmp_path, "model={preset: llama-tiny}", f"data.tokenizer={tmp_path / 'tiny'}")
    keep_model(job, run_dir)
    (run_dir / "job.yaml").write_text(yaml.safe_dump(job.resolved()))
    assert [path.name for path in kept_files(run_dir)] == ["tokenizer.json"]
    assert recorded_model(run_dir) == job.model.resolve()


def test_a_directory_with_a_tokenizer_reads_the_text_unless_another_is_named(tmp_path: Path) -> None:
    here = _written(tmp_path / "tiny")
    assert _job(tmp_path).data.tokenizer == "bytes"
    (here / "tokenizer.json").write_text("{}")
    job = _job(tmp_path)
    assert (job.data.tokenizer, job.text().tokenizer) == ("model", str(here))
    assert job.resolved()["data"]["tokenizer"] == "model"
    assert job.facts()["data"]["tokenizer"] == "a directory's"
    assert _job(tmp_path, "data.tokenizer=bytes").data.tokenizer == "bytes"
    assert _job(tmp_path, "model={preset: llama-tiny}").data.tokenizer == "bytes"


def test_trained_weights_on_raw_bytes_are_told_of(tmp_path: Path) -> None:
    here = _written(tmp_path / "tiny")
    (note,) = plan_job(_job(tmp_path)).notes
    assert "raw bytes" in note
    assert "it has no tokenizer.json" in note
    (here / "tokenizer.json").write_text("{}")
    assert "data.tokenizer: model takes" in plan_job(_job(tmp_path, "data.tokenizer=bytes")).notes[0]
    assert not plan_job(_job(tmp_path, "data.tokenizer=bytes", "model.init=random")).notes


def test_a_tokenizer_that_no_run_could_read_with_is_told_of(tmp_path: Path) -> None:
    file = _written(tmp_path / "tiny") / "tokenizer.json"
    file.write_text("{}")
    (note,) = plan_job(_job(tmp_path)).notes
    assert "its tokenizer.json cannot be read" in note
    for symbols, told in ((300, 0), (301, 1)):
        Tokenizer(WordLevel({str(n): n for n in range(symbols)}, unk_token="0")).save(str(file))
        notes = plan_job(_job(tmp_path)).notes
        assert len(notes) == told
    assert "has 301 symbols, and the model's embedding has room for 300" in notes[0]


def test_what_decides_the_numbers(tmp_path: Path) -> None:
    _written(tmp_path / "tiny")
    facts = _job(tmp_path).facts()
    assert facts["model"] == {"hf": CONFIG}
    _written(tmp_path / "tiny", transformers_version="9", _name_or_path="x", torch_dtype="float16")
    assert _job(tmp_path).facts() == facts
    _written(tmp_path / "tiny", rope_theta=7.0)
    assert _job(tmp_path).facts() != facts


def test_dropout_that_no_run_applies_is_told_of(tmp_path: Path) -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 300}
    for dropout, told in ((0.1, 1), (0.0, 0)):
        shutil.rmtree(tmp_path / "tiny", ignore_errors=True)
        write_folder(tmp_path / "tiny", {}, {**gpt2, "resid_pdrop": dropout})
        notes = plan_job(_job(tmp_path, "model.init=random")).notes
        assert len([note for note in notes if f"(resid_pdrop {dropout})" in note]) == told
