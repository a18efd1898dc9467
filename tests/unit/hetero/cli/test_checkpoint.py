"""`hetero checkpoint` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from hetero.checkpoint.resume import ResumePoint
from hetero.cli.app import run
from hetero.huggingface.folder import HfFolder
from hetero.huggingface.reader import HfReader
from hetero.job.file.load import load_job
from hetero.job.run.resuming import check_resume
from hetero.models.as_hf import as_hf
from tests.unit.hetero.checkpoint.test_export import DIMS, LORA, _logical, _saved, _with_adapters
from tests.unit.hetero.huggingface.written import write_folder

BYTES = DIMS.model_copy(update={"vocab": 300})


@pytest.fixture
def saved(tmp_path: Path) -> ResumePoint:
    point = _saved(tmp_path / "run", _logical(BYTES))
    job = {
        "model": {"dimensions": BYTES.model_dump()},
        "data": {"seq_len": 4},
        "train": {"steps": 4, "global_batch": 2},
        "pools": {"here": {"family": "cpu", "count": 1}},
    }
    (tmp_path / "run" / "job.yaml").write_text(yaml.safe_dump(job))
    return point


def test_inspect(saved: ResumePoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["checkpoint", "inspect", str(saved.run_dir)]) == 0
    screen = capsys.readouterr().out
    for word in ("3, of which 3 were updates", "6 sequences, 24 tokens", "12, each with parameter", "F32 (48)"):
        assert word in " ".join(screen.split()), screen


def test_inspect_as_data(saved: ResumePoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["checkpoint", "inspect", f"{saved.run_dir}@3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["step"], told["updates"], told["pieces"], told["dtypes"]) == (3, 3, 2, {"F32": 48})
    assert told["tensors"]["units.0.embedding.weight"] == [BYTES.vocab, BYTES.hidden]
    assert told["elements"]["parameter"] == told["elements"]["exp_avg"]


def test_verify(saved: ResumePoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["checkpoint", "verify", str(saved.run_dir)]) == 0
    assert capsys.readouterr().out == "step 3: whole\n"
    assert run(["checkpoint", "verify", f"{saved.run_dir}@3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"whole": [3], "damaged": {}}


def test_a_flipped_bit_is_found(saved: ResumePoint, capsys: pytest.CaptureFixture[str]) -> None:
    piece = next(saved.store.folder(3).glob("a-1-*.safetensors"))
    content = bytearray(piece.read_bytes())
    content[-1] ^= 1
    piece.write_bytes(content)
    assert run(["checkpoint", "verify", str(saved.run_dir)]) == 1
    assert f"step 3: damaged: {piece.name} (of a:1) has changed since it was written" in capsys.readouterr().out
    assert run(["checkpoint", "export", str(saved.run_dir), str(saved.run_dir / "out")]) == 1
    assert "has changed since it was written" in " ".join(capsys.readouterr().err.split())
    assert not list(saved.run_dir.glob("*out*"))
    piece.unlink()
    assert run(["checkpoint", "verify", str(saved.run_dir)]) == 1
    assert "is missing" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["export"]])
def test_what_is_not_there_is_the_users_mistake(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [str(tmp_path / "out")] if command == ["export"] else []
    assert run(["checkpoint", *command, str(tmp_path / "nowhere"), *more]) == 2
    assert "RUN_DIR[@STEP]" in capsys.readouterr().err


def test_export_by_the_job_of_the_run(saved: ResumePoint, tmp_path: Path) -> None:
    assert run(["checkpoint", "export", str(saved.run_dir), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    folder = HfFolder(tmp_path / "out")
    assert {tensor.dtype for tensor in folder.tensors.values()} == {"bfloat16"}
    assert [path.name for path in folder.beside] == ["config.json"]


def test_export_by_what_the_run_kept(saved: ResumePoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved.run_dir / "job.yaml").unlink()
    kept = saved.run_dir / "model"
    kept.mkdir()
    (kept / "config.json").write_text(as_hf(BYTES).config)
    (kept / "tokenizer.json").write_text("{}")
    assert run(["checkpoint", "export", f"{saved.run_dir}@3", str(tmp_path / "out")]) == 0
    assert [path.name for path in HfFolder(tmp_path / "out").beside] == ["config.json", "tokenizer.json"]
    assert "as llama" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--merge", "--adapter"])
def test_a_run_without_adapters_has_none_to_export(
    option: str, saved: ResumePoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["checkpoint", "export", str(saved.run_dir), str(tmp_path / "out"), option]) == 2
    assert f"export it without {option}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_import_and_back(saved: ResumePoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    assert run(["checkpoint", "export", str(saved.run_dir), str(there), "--dtype", "bfloat16"]) == 0
    assert run(["checkpoint", "import", str(there), str(tmp_path / "imported")]) == 0
    assert run(["checkpoint", "export", str(tmp_path / "imported"), str(back)]) == 0
    assert run(["checkpoint", "export", str(tmp_path / "imported"), str(tmp_path / "merged"), "--merge"]) == 2
    assert "export it without --merge" in capsys.readouterr().err
    one, other = HfFolder(there), HfFolder(back)
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(HfReader(one).get(name), HfReader(other).get(name)) for name in one.tensors)

    job = {**yaml.safe_load((saved.run_dir / "job.yaml").read_text()), "model": {"hf": "there"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    check_resume(load_job(tmp_path / "job.yaml"), ResumePoint.parse(str(tmp_path / "imported")))
    assert run(["checkpoint", "import", str(there), str(tmp_path / "imported")]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_to_megatron_and_back(saved: ResumePoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    assert run(["checkpoint", "export", str(saved.run_dir), there, "--format", "megatron"]) == 0
    assert run(["checkpoint", "import", there, back, "--format", "megatron"]) == 0
    assert "as llama" in (told := capsys.readouterr().out)
    assert f"wrote {back}@0, of llama" in told
    ours, theirs = (tmp_path / name for name in ("ours", "theirs"))
    for run_dir, folder in ((str(saved.run_dir), ours), (back, theirs)):
        assert run(["checkpoint", "export", run_dir, str(folder)]) == 0
    one, other = HfReader(HfFolder(ours)), HfReader(HfFolder(theirs))
    assert all(torch.equal(one.get(name), other.get(name)) for name in HfFolder(ours).tensors)
    assert run(["checkpoint", "import", str(ours), str(tmp_path / "again"), "--format", "megatron"]) == 2
    assert "has no .metadata" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_what_is_no_model_is_not_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "there", config=json.loads(as_hf(BYTES).config))
    assert run(["checkpoint", "import", str(folder), str(tmp_path / "imported")]) == 2
    assert "missing: model.embed_tokens.weight" in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()


@pytest.fixture
def adapted(saved: ResumePoint, tmp_path: Path) -> ResumePoint:
    job = yaml.safe_load((saved.run_dir / "job.yaml").read_text())
    job["train"]["lora"] = LORA.model_dump(mode="json")
    point = _saved(tmp_path / "tuned", _with_adapters(as_hf(BYTES)))
    (point.run_dir / "job.yaml").write_text(yaml.safe_dump(job))
    return point


def test_export_of_adapters(adapted: ResumePoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["checkpoint", "export", str(adapted.run_dir)]
    assert run([*common, str(tmp_path / "out")]) == 2
    assert "fold them in with --merge, or give --adapter" in " ".join(capsys.readouterr().err.split())
    assert run([*common, str(tmp_path / "merged"), "--merge"]) == 0
    assert len(HfFolder(tmp_path / "merged").tensors) == 12
    for more in (["--merge"], ["--dtype", "bfloat16"], ["--format", "torch"]):
        assert run([*common, str(tmp_path / "alone"), "--adapter", *more]) == 2
        assert "leave out --merge, --dtype and --format" in capsys.readouterr().err
    assert run([*common, str(tmp_path / "alone"), "--adapter"]) == 0
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
