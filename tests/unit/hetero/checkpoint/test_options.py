from __future__ import annotations

import pytest
from pydantic import ValidationError

from hetero.checkpoint.options import CheckpointOptions


def test_a_file_address_is_its_path() -> None:
    assert CheckpointOptions(storage="file:///shared/runs").storage == "/shared/runs"
    assert CheckpointOptions(storage="/shared/runs").storage == "/shared/runs"
    assert CheckpointOptions() == CheckpointOptions(every=0, keep=3, storage=None)


@pytest.mark.parametrize("wrong", [{"storage": "s3://b"}, {"storage": ""}, {"keep": 0}, {"every": -1}, {"evry": 1}])
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CheckpointOptions(**wrong)
