"""`hetero data`, from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hetero.cli.app import run
from tests.unit.hetero.data.made_tokenizer import made_tokenizer


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made_tokenizer(tmp_path / "tokenizer")
    chats = [
        {"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": "four"}]}
        for n in range(20)
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, chats)))
    data = {"source": str(tmp_path / "chat.jsonl"), "loss": "answers", "seq_len": 80}
    said = {
        "model": {"dimensions": {"layers": 1, "hidden": 8, "heads": 1, "kv_heads": 1, "ffn": 8, "vocab": 300}},
        "data": data | {"tokenizer": str(tmp_path / "tokenizer")},
        "train": {"steps": 2, "global_batch": 2},
        "pools": {"here": {"family": "cpu", "count": 1}},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(said, indent=1))
    return str(tmp_path / "job.yaml")


def test_prepare_says_what_there_is(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "prepare", job]) == 0
    first = capsys.readouterr().out
    assert " samples of 80, fingerprint " in first
    assert f"kept in {tmp_path / 'cache' / 'hetero' / 'data'}" in first
    assert run(["data", "prepare", job]) == 0
    assert capsys.readouterr().out == first


def test_look_tells_what_is_learnt(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "look", job, "--samples", "2", "--json"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [sample["position"] for sample in samples] == [0, 1]
    for sample in samples:
        assert len(sample["documents"]) > 1
        for document in sample["documents"]:
            asked, answered = document["stretches"]
            assert not asked["learnt"]
            assert asked["text"].startswith("<|im_start|>user\nwhat is ")
            assert answered == {"learnt": True, "text": "four<|im_end|>"}
    assert run(["data", "look", job, "--samples", "1"]) == 0
    shown = capsys.readouterr().out
    assert "document 2: " in shown
    assert "assistant\n⟦four<|im_end|>⟧" in shown


def test_on_a_terminal_it_is_green(
    job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(["data", "look", job, "--samples", "1"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[32mfour<|im_end|>" in shown
    assert "⟦" not in shown


def test_a_stream_of_bytes_is_shown_too(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} \x1b[2Jtext")
    settings = ["data.source=" + str(tmp_path / "*.txt"), "data.tokenizer=bytes", "data.loss=all", "data.seq_len=20"]
    assert run(["data", "look", job, "--samples=1", *(f"--set={one}" for one in settings)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"a⟦ \x1b[2Jtext" in shown
    assert "document 2: " in shown


def test_the_tokenizer_of_the_models_directory(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1}
    config |= {"intermediate_size": 8, "vocab_size": 300, "max_position_embeddings": 99}
    (tmp_path / "tokenizer" / "config.json").write_text(json.dumps(config))
    said = json.loads(Path(job).read_text())
    said["model"] = {"hf": str(tmp_path / "tokenizer"), "init": "random"}
    said["data"]["tokenizer"] = "model"
    Path(job).write_text(json.dumps(said))
    assert run(["data", "look", job, "--samples=1"]) == 0
    assert "four<|im_end|>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "place", "rule"),
    [
        ("model.dimensions.vocab=299", "job.yaml", "has 300 symbols, and the model's embedding has room for 299"),
        ("data.tokenizer=model", "--set: data.tokenizer", "the model has none"),
        ("data.fields.text=words", "chat.jsonl:1", "has no field 'words'; its fields are 'messages'"),
    ],
)
def test_a_mistake_is_shown_with_its_place(
    job: str, capsys: pytest.CaptureFixture[str], setting: str, place: str, rule: str
) -> None:
    assert run(["data", "look", job, "--set", setting]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert place in shown
    assert rule in shown
