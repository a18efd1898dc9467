from __future__ import annotations

import pytest
from pydantic import ValidationError

from hetero.checkpoint.options import CheckpointOptions


def test_a_file_address_is_its_path() -> None:
    assert CheckpointOptions(storage="file:///shared/runs").storage == "/shared/runs"
    assert CheckpointOptions(storage="/shared/runs").storage == "/shared/runs"
    assert CheckpointOptions(storage="s3://bucket/runs").storage == "s3://bucket/runs"
    assert CheckpointOptions() == CheckpointOptions(every=0, keep=3, storage=None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"storage": "https://h/x"},
        {"storage": "no-such-scheme://b"},
        {"storage": "zip://a.zip::s3://b/x"},
        {"storage": "s3://me:word@host/x"},
        {"storage": "s3://"},
        {"storage": ""},
        {"keep_every": -1},
        {"keep": 0},
        {"every": -1},
        {"evry": 1},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CheckpointOptions(**wrong)
