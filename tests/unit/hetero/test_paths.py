"""What is a path is read alike wherever it is written: in every key of a job file, every option and argument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from pydantic import BaseModel

from hetero.checkpoint.resume import ResumePoint, checkpoint_place
from hetero.cli.app import app, run
from hetero.data.corpus import Corpus
from hetero.errors import ExplainedError
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.monitoring.trackers.tensorboard import TensorBoardOptions
from hetero.paths import PathError, local, path_text
from tests.architecture.tree import ROOT

QUICKSTART = str(ROOT / "configs" / "runs" / "quickstart.yaml")
STORES = ["s3://bucket/x", "memory://x", "local:///x"]
WRONG = [*STORES, "file://server/share", "https://host/x", "file://", ""]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("runs/a", "runs/a"),
        ("/a b", "/a b"),
        ("file:///a%20b", "/a b"),
        ("FILE://localhost/a", "/a"),
        ("file:/a", "/a"),
        ("a:b", "a:b"),
        ("./~", "~"),
    ],
)
def test_a_path_is_the_one_that_is_meant(text: str, path: str) -> None:
    assert local(text, "--run-dir") == Path(path)


def test_a_tilde_is_a_home(home: Path) -> None:
    assert local("~", "x") == home
    assert local("~/a", "x") == local("file:///~/a".replace("file:///", ""), "x") == home / "a"
    assert path_text("~/a") == "~/a", "the machine that uses it may have another home"


@pytest.mark.parametrize("text", [*WRONG, "a\0b", "\udce6\udcb1\udca0", "~nobody-of-that-name/x"])
def test_what_is_no_path_here_is_refused_by_its_key(text: str) -> None:
    with pytest.raises(PathError) as caught:
        local(text, "--run-dir")
    assert caught.value.key == "--run-dir"


# The job file


def _keys(kind: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that takes a text, with its field."""
    for name, field in kind.model_fields.items():
        here = f"{key}.{name}".lstrip(".")
        below = _models(field.annotation)
        for model in below:
            yield from _keys(model, here)
        if not below:
            yield here, field


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in get_args(kind) for model in _models(part)]


def _is_path(field: Any) -> bool:
    told = f"{field.metadata} {field.annotation}"
    return "path_text" in told or "path_or_address" in told


def test_every_key_that_is_a_path_is_read_as_one() -> None:
    fields = dict(_keys(Job))
    paths = {key for key, field in fields.items() if _is_path(field)}
    sounds = re.compile(r"\b(folder|file|path|interpreter)\b", re.IGNORECASE)
    sounding = {key for key, field in fields.items() if sounds.search(field.description or "") and key != "name"}
    assert paths == {
        "data.source.source", "data.tokenizer", "model.hf", "checkpoint.storage", "pools.env.python"
    }  # fmt: skip
    assert sounding - {"monitor.trace_every"} <= paths
    assert _is_path(TensorBoardOptions.model_fields["folder"])


@pytest.mark.parametrize("key", ["data.source", "checkpoint.storage", "pools.nvidia.env.python"])
@pytest.mark.parametrize("text", WRONG)
def test_a_key_that_names_no_path_is_refused(key: str, text: str) -> None:
    if key == "checkpoint.storage" and text in STORES:
        assert load_job(QUICKSTART, [f'{key}="{text}"']).checkpoint.storage == text
        return
    with pytest.raises(JobError) as caught:
        load_job(QUICKSTART, [f'{key}="{text}"'])
    assert caught.value.key == key


def test_paths_of_a_job_are_in_the_home_of_the_machine_that_uses_them(home: Path) -> None:
    (home / "text").write_text("text")
    job = load_job(QUICKSTART, ["data.source=~/text", "checkpoint.storage=~/kept"])
    assert [b"".join(document) for document in Corpus.of(job.data.source).documents()] == [b"text"]
    assert checkpoint_place(Path("runs/one"), str(job.checkpoint.storage)) == home / "kept" / "one"
    with pytest.raises(ExplainedError, match=re.escape(str(home / "old"))):
        ResumePoint.parse("~/old@3")


# The command line


def _parameters(group: typer.Typer) -> Iterator[tuple[str, Any, Any]]:
    """Every option and argument: its name, its type, and what the command line is told of it."""
    for command in group.registered_commands:
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            if get_origin(hint) is Annotated:
                yield f"{command.callback.__name__} {name}", *get_args(hint)  # type: ignore[union-attr]
    for below in group.registered_groups:
        yield from _parameters(below.typer_instance)  # type: ignore[arg-type]


def test_every_option_that_is_a_path_is_read_as_one() -> None:
    sounds = re.compile(r"DIR|FILE|yaml|json")
    paths = set()
    for name, kind, told in _parameters(app):
        read_later = "RUN_DIR|JOB", "A.json B.json"  # by hetero.cli.watched and hetero.cli.plan
        sounding = sounds.search(str(told.metavar)) and told.metavar not in read_later
        if sounding or Path in (kind, *get_args(kind)):
            paths.add(name)
            with pytest.raises(PathError):
                told.parser("file://server/share")
    assert {"train job_file", "train plan", "submit resume", "fetch to", "report output", "doctor run_dir"} < paths


ARGUMENTS = [
    ["plan", "X"],
    ["train", "X"],
    ["train", QUICKSTART, "--run-dir", "X"],
    ["train", QUICKSTART, "--plan", "X"],
    ["train", QUICKSTART, "--resume", "X"],
    ["submit", QUICKSTART, "--address", "http://127.0.0.1:1", "--run-dir", "X"],
    ["submit", QUICKSTART, "--address", "http://127.0.0.1:1", "--resume", "X"],
    ["jobs", "fetch", "a", "--address", "http://127.0.0.1:1", "--to", "X"],
    ["top", "X"],
    ["dashboard", "X"],
    ["report", "X"],
    ["report", ".", "--output", "X"],
    ["doctor", "X"],
    ["doctor", "--run-dir", "X"],
]


@pytest.mark.parametrize(
    "arguments", ARGUMENTS, ids=lambda arguments: "-".join([arguments[0], arguments[-2].strip("-")])
)
def test_an_option_that_names_no_path_is_refused(
    arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["file://server/share" if one == "X" else one for one in arguments]) == 2
    shown = capsys.readouterr().err
    assert "a file of the server 'server'" in shown, shown
    assert not list(Path.cwd().iterdir())


TOO_LONG = [ARGUMENTS[at] for at in (0, 2, 3, 4, 8, 9, 10, 13)]


@pytest.mark.parametrize(
    "arguments", TOO_LONG, ids=lambda arguments: "-".join([arguments[0], arguments[-2].strip("-")])
)
def test_a_name_that_is_too_long_is_explained(
    arguments: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As any that the system does not let us ask about."""
    monkeypatch.setattr("hetero.cluster.doctor.machine.detect", list)
    monkeypatch.setattr("hetero.cluster.doctor.machine.torch_fault", str)
    assert run(["x" * 300 if one == "X" else one for one in arguments]) == 2, capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


def test_a_report_goes_to_the_home(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run").mkdir()
    (home / "run" / "events.jsonl").write_text('{"seq": 0, "time": 1.0, "step": null, "kind": "started", "data": {}}\n')
    assert run(["report", "~/run", "--output", "~/page.html"]) == 0, capsys.readouterr().err
    assert (home / "page.html").exists()
    assert not list(Path.cwd().iterdir())
