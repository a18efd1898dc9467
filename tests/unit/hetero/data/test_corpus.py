"""What of a source is read, and what is said of the rest."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from hetero.data.corpus import Corpus
from hetero.data.errors import DataError
from hetero.data.walk import AGAIN, HIDDEN, NOWHERE, SPECIAL, WRITTEN
from hetero.data.written import check_apart, unfinished_tokens
from hetero.monitoring.journal import EVENTS
from tests.unit.hetero.data.refused import not_entered, not_listed, not_opened

PIECE = "nvidia-0-5f3a90c1.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return _written(tmp_path / "source", {"b": "b", "a/z": "az", "a.txt": "a."})


def _written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _run_directory(folder: Path) -> Path:
    return _written(folder, {"job.yaml": "", EVENTS: "", "data/tokens.bin": "abc", f"checkpoints/step-1/{PIECE}": ""})


def _names(corpus: Corpus) -> list[str]:
    return [file.name for file in corpus.files]


def test_files_are_in_the_order_of_their_paths(source: Path) -> None:
    corpus = Corpus.of(str(source))
    assert _names(corpus) == ["a.txt", "a/z", "b"]
    assert [b"".join(document) for document in corpus.documents()] == [b"a.", b"az", b"b"]
    assert (corpus.omitted, corpus.leading_out, corpus.note) == ({}, (), "")


def test_what_is_hidden_is_counted_unless_it_is_the_source(source: Path) -> None:
    _written(source / ".git", {"x": "1", "y": "2"})
    _written(source, {"a/.z": "3"})
    corpus = Corpus.of(str(source))
    assert (_names(corpus), corpus.omitted) == (["a.txt", "a/z", "b"], {HIDDEN: 2})
    assert _names(Corpus.of(str(source / ".git"))) == ["x", "y"]


# Links


def test_links_are_followed_wherever_they_lead(source: Path, tmp_path: Path) -> None:
    _written(tmp_path / "away", {"deep/one": "1", "two": "2", "three": "3"})
    (source / "c").symlink_to(tmp_path / "away" / "deep")
    (source / "d").symlink_to("../away/two")
    (tmp_path / "away" / "deep" / "further").symlink_to("../three")
    corpus = Corpus.of(str(source))
    assert _names(corpus) == ["a.txt", "a/z", "b", "c/further", "c/one", "d"]
    assert corpus.leading_out == ("c", "d", "c/further")
    assert corpus.omitted == {}


def test_a_link_to_what_is_there_changes_nothing(source: Path) -> None:
    """Whatever its name: the real one counts."""
    (source / "0").symlink_to("a")
    (source / "1").symlink_to("b")
    (source / "2").symlink_to(source)
    corpus = Corpus.of(str(source))
    assert (_names(corpus), corpus.omitted) == (["a.txt", "a/z", "b"], {AGAIN: 3})
    assert corpus.leading_out == ()


def test_a_link_that_leads_up_takes_each_file_once(source: Path, tmp_path: Path) -> None:
    _written(tmp_path, {"beside": "1"})
    (source / "up").symlink_to("..")
    corpus = Corpus.of(str(source))
    assert _names(corpus) == ["a.txt", "a/z", "b", "up/beside"]
    assert corpus.omitted == {AGAIN: 1}
    assert corpus.leading_out == ("up",)


def test_a_visible_link_to_what_is_hidden_is_followed(source: Path) -> None:
    """So do the volumes of Kubernetes and the caches of data sets look."""
    _written(source / ".blobs", {"1": "text"})
    (source / "c").symlink_to(".blobs/1")
    corpus = Corpus.of(str(source))
    assert (_names(corpus), corpus.omitted) == (["a.txt", "a/z", "b", "c"], {HIDDEN: 1})
    assert corpus.leading_out == ()


def test_a_source_that_is_a_link_is_what_it_leads_to(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    (source / "again").symlink_to(source / "a")
    corpus = Corpus.of(str(tmp_path / "link"))
    assert (_names(corpus), corpus.leading_out) == (["a.txt", "a/z", "b"], ())


def test_what_is_no_text_is_counted(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "dangling").symlink_to("nowhere")
    (source / "through").symlink_to("b/below")
    (source / "itself").symlink_to("itself")
    os.mkfifo(source / "pipe")
    (source / "zero").symlink_to("/dev/zero")
    monkeypatch.chdir(source)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        corpus = Corpus.of(str(source))
    assert (_names(corpus), corpus.omitted) == (["a.txt", "a/z", "b"], {NOWHERE: 3, SPECIAL: 3})
    assert corpus.leading_out == ()
    assert corpus.note == "left out of data.source: 3 leading nowhere, 3 neither file nor folder"


# What cannot be read


@pytest.mark.parametrize(("refusal", "named"), [(not_listed, "a"), (not_entered, "a/z")])
def test_a_folder_that_cannot_be_read_is_named(
    source: Path, refusal: Callable[[Path], AbstractContextManager[None]], named: str
) -> None:
    with refusal(source / "a"), pytest.raises(DataError, match="cannot be read") as raised:
        Corpus.of(str(source))
    assert (raised.value.key, raised.value.value) == ("data.source", str(source / named))


def test_a_file_that_cannot_be_read_is_named_before_any_is(source: Path) -> None:
    with not_opened(source / "b"), pytest.raises(DataError, match="cannot be read") as raised:
        Corpus.of(str(source))
    assert raised.value.value == str(source / "b")


# What runs write


def test_what_runs_write_is_no_text(source: Path) -> None:
    _run_directory(source / "runs" / "one")
    _run_directory(source / "runs" / "two")
    _written(source / "storage" / "one" / "step-00000001", {PIECE: "", "manifest.json": "{}"})
    _written(source / "storage" / "two" / "step-00000001", {f"{PIECE}.tmp": ""})
    unfinished_tokens(source).write_text("ab")
    corpus = Corpus.of(str(source))
    assert (_names(corpus), corpus.omitted) == (["a.txt", "a/z", "b"], {WRITTEN: 5})


def test_tokens_that_a_link_leads_to_are_no_text(source: Path, tmp_path: Path) -> None:
    run = _run_directory(tmp_path / "run")
    (source / "c").symlink_to(run / "data" / "tokens.bin")
    (source / "d").symlink_to(run / "data")
    (source / "e").symlink_to(run)
    corpus = Corpus.of(str(source))
    assert (_names(corpus), corpus.omitted) == (["a.txt", "a/z", "b"], {WRITTEN: 2, AGAIN: 1})


def test_what_only_looks_like_a_runs_is_text(source: Path) -> None:
    _written(source, {"c/job.yaml": "1", f"d/{EVENTS}": "2", "data/tokens.bin": "3", "m/model.safetensors": "4"})
    names = _names(Corpus.of(str(source)))
    assert names[2:] == ["b", "c/job.yaml", "d/events.jsonl", "data/tokens.bin", "m/model.safetensors"]


@pytest.mark.parametrize("part", ["", "data/tokens.bin", "checkpoints/step-1"])
def test_a_source_that_a_run_wrote_is_refused(tmp_path: Path, part: str) -> None:
    source = str(_run_directory(tmp_path / "run") / part)
    with pytest.raises(DataError, match="is what a run") as raised:
        Corpus.of(source)
    assert raised.value.value == source


@pytest.mark.parametrize(
    ("source", "written"), [(".", "."), ("source", "source"), ("source/a", "source"), ("link", "source"), ("a", "link")]
)
def test_a_source_in_what_the_run_is_about_to_write(
    source: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _written(tmp_path / "source" / "a", {"z": ""})
    (tmp_path / "link").symlink_to("source")
    (tmp_path / "a").symlink_to("source/a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="which this run writes") as raised:
        check_apart(source, Path(written))
    assert (raised.value.key, raised.value.value) == ("data.source", source)


def test_a_source_beside_or_around_what_the_run_writes(source: Path, tmp_path: Path) -> None:
    check_apart(str(source), source / "runs" / "new")
    check_apart(str(source), tmp_path / "source2")
    check_apart(str(source / "b"), source)
    check_apart(str(tmp_path / "none"), tmp_path)
