from __future__ import annotations

from pathlib import Path

import pytest

from hetero.job.errors import JobError
from hetero.job.file.document import Document, read_document

TEXT = """\
# a comment
train:
  steps: 10

bridge:
  links:
    - {between: [a, b]}
    - between: [b, c]
      rate: 1.0e-3
"""


@pytest.fixture
def document(tmp_path: Path) -> Document:
    path = tmp_path / "job.yaml"
    path.write_text(TEXT)
    return read_document(path)


def _error(tmp_path: Path, text: str) -> JobError:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(JobError) as caught:
        read_document(path)
    return caught.value


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("train.steps", 3),
        ("bridge.links[1].rate", 9),
        ("bridge.links[1]", 8),
        ("bridge.links[0].between[1]", 7),
        ("train.unknown.deep", 2),
    ],
)
def test_every_key_knows_its_line_or_its_sections(document: Document, key: str, line: int) -> None:
    assert document.place(key) == (document.file, line)


def test_data_is_plain(document: Document) -> None:
    links = [{"between": ["a", "b"]}, {"between": ["b", "c"], "rate": 0.001}]
    assert document.data == {"train": {"steps": 10}, "bridge": {"links": links}}


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("train.steps=20", ["train", "steps"], 20),
        ("train.optimizer.lr=1.0e-2", ["train", "optimizer", "lr"], 0.01),
        ("bridge.links[1].rate=2", ["bridge", "links", 1, "rate"], 2),
        ("bridge.links.0.between=[x, y]", ["bridge", "links", 0, "between"], ["x", "y"]),
        ("new.section={a: 1}", ["new", "section"], {"a": 1}),
        ("train.note=a=b", ["train", "note"], "a=b"),
        ("train.optimizer.lr=1e-2", ["train", "optimizer", "lr"], 0.01),
        ("train.note=1:30", ["train", "note"], "1:30"),
    ],
)
def test_set_overrides_one_key(document: Document, assignment: str, path: list[str | int], value: object) -> None:
    document.put(assignment)
    found: object = document.data
    for part in path:
        found = found[part]  # type: ignore[index]
    assert found == value


def test_a_key_that_set_gave_is_placed_there(document: Document) -> None:
    document.put("train.steps=zero")
    assert document.place("train.steps") == ("--set", None)
    assert document.place("bridge") == (document.file, 5)


def test_set_takes_a_pool_away(document: Document) -> None:
    document.data["pools"] = {"a": {"count": 1}, "b": {"count": 2}}
    document.put("pools.a=null")
    assert document.data["pools"] == {"b": {"count": 2}}
    with pytest.raises(JobError, match="there is no such pool") as caught:
        document.put("pools.c=null")
    assert caught.value.remedy == "the job has: b"


@pytest.mark.parametrize(
    "assignment",
    ["train.steps", "train.steps=0100", "=1", "train.steps.deep=1", "bridge.links[7].rate=1", "a=[1", "pools.a=null"],
)
def test_set_that_cannot_be_obeyed_is_explained(document: Document, assignment: str) -> None:
    with pytest.raises(JobError) as caught:
        document.put(assignment)
    assert caught.value.remedy


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    error = _error(tmp_path, "train:\n  steps: 1\n  steps: 2\n")
    assert (error.key, error.line) == ("train.steps", 3)
    assert "line 2" in error.rule


def test_a_number_that_begins_with_a_zero_is_refused_at_its_line(tmp_path: Path) -> None:
    error = _error(tmp_path, "train:\n  steps: 0100\n")
    assert (error.key, error.value, error.line) == ("train.steps", "0100", 2)
    assert "0o17" in error.remedy


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    assert _error(tmp_path, "train:\n  steps: [1\n").line in (2, 3)


def test_no_mapping_no_file_no_text(tmp_path: Path) -> None:
    assert "mapping" in _error(tmp_path, "- 1\n").rule
    with pytest.raises(JobError, match="readable"):
        read_document(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match="UTF-8"):
        read_document(tmp_path / "binary.yaml")
