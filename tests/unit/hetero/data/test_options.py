"""What the job file says of data."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hetero.data.options import DataOptions


def test_facts_are_those_of_before_where_nothing_new_is_said() -> None:
    """Checkpoints know their job by them."""
    assert DataOptions(seq_len=9).facts() == {"tokenizer": "bytes", "seq_len": 9}
    assert DataOptions(seq_len=9, loss="answers", pack=False, tokenizer="/a").facts() == {
        "tokenizer": "a directory's",
        "seq_len": 9,
        "loss": "answers",
        "pack": False,
    }


def test_sources_have_what_is_said_for_all_unless_they_say_otherwise() -> None:
    listed: list[dict[str, Any]] = [{"source": "a"}, {"source": "b", "format": "text", "fields": {"text": "t"}}]
    said = DataOptions(source=listed, format="jsonl", fields={"messages": "m"}, seq_len=9)  # type: ignore[arg-type]
    assert [(one.source, one.format, one.fields and one.fields.names) for one in said.sources] == [
        ("a", "jsonl", {"messages": "m"}),
        ("b", "text", {"text": "t"}),
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"source": []},
        {"source": [{"source": "a", "weight": 0}]},
        {"fields": {}},
        {"fields": {"prompt": "a"}},
        {"fields": {"text": "a", "messages": "b"}},
        {"fields": {"labels": "a"}},
        {"source": "s3://bucket"},
    ],
)
def test_what_says_nothing_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataOptions(seq_len=9, **said)
