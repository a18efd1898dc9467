"""What a text becomes is known before it is read, and the same as when it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hetero.data.kind import packs
from hetero.data.options import DataOptions
from hetero.data.source import prepare


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = "".join(json.dumps({"text": word}) + "\n" for word in ("one", "two", "three"))
    for name, text in {"a.jsonl": lines, "folder/a.jsonl": lines, "a.txt": "some plain text", "mixed/a.jsonl": lines,
                       "mixed/a.txt": "some plain text"}.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"source": "a.jsonl"}, True),
        ({"source": "folder"}, True),
        ({"source": "folder/*.jsonl"}, True),
        ({"source": "a.jsonl", "pack": False}, False),
        ({"source": "a.jsonl", "format": "text"}, False),
        ({"source": [{"source": "a.txt"}, {"source": "a.jsonl"}]}, True),
        ({"source": "a.txt"}, False),
        ({"source": "mixed"}, False),
    ],
)
def test_whether_samples_are_of_several_documents(said: dict[str, Any], wanted: bool, tmp_path: Path) -> None:
    options = DataOptions(seq_len=8, **said)
    assert packs(options) == prepare(options, tmp_path / "made").packs == wanted


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("/there/chats/*.jsonl.gz", True),
        ("/there/folder", False),
        ("~nobody-here/chats.jsonl", True),
        ("~nobody-here/text", False),
    ],
)
def test_a_source_on_another_machine_is_known_by_its_name(source: str, wanted: bool) -> None:
    assert packs(DataOptions(seq_len=8, source=source)) == wanted
