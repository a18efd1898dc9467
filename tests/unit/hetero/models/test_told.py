"""Models stay what they are: checkpoints, plans and runs on record name these tensors and count on these costs."""

from __future__ import annotations

import json

import pytest

from tests.unit.hetero.models.told import MODELS, RECORD, told


@pytest.mark.parametrize("name", MODELS)
def test_a_model_tells_what_is_on_record(name: str) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[name]
    now = json.loads(json.dumps(told(MODELS[name])))
    for part in recorded.keys() | now.keys():
        assert now[part] == recorded[part], part
