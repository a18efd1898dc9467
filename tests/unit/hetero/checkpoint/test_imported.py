"""A directory of every type becomes a checkpoint and a directory again, and not a bit of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero.checkpoint.export import export
from hetero.checkpoint.imported import import_weights
from hetero.checkpoint.resume import ResumePoint
from hetero.huggingface.errors import HfError
from hetero.huggingface.folder import HfFolder
from hetero.huggingface.reader import HfReader
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture, family_names, weights
from hetero.models.stored_weights import StoredWeights
from tests.tiny_models import tiny
from tests.unit.hetero.huggingface.written import write_folder


def _written(folder: Path, model: HfModel) -> StoredWeights:
    tensors = {name: torch.randn(shape).bfloat16() for name, shape in weights(model).foreign.items()}
    write_folder(folder, tensors, {**model.values, "dtype": "bfloat16"}, shards=2)
    return StoredWeights(model, HfFolder(folder))


@pytest.mark.slow
@pytest.mark.parametrize("kind", family_names())
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    stored, point = _written(tmp_path / "in", tiny(kind)), ResumePoint(tmp_path / "run", 0)
    model = HfModel.of(stored.folder.config)
    import_weights(stored, architecture(model), point.store, {}, most_bytes=20_000)
    assert len(point.store.verify(0).pieces) > 1
    export(point, model, (), tmp_path / "out", "hf", None)
    back = HfFolder(tmp_path / "out")
    assert back.tensors.keys() == stored.folder.tensors.keys()
    one, other = HfReader(stored.folder), HfReader(back)
    assert all(torch.equal(one.get(name), other.get(name)) for name in back.tensors)


def test_what_does_not_fit_leaves_no_checkpoint(tmp_path: Path) -> None:
    model, point = tiny("llama"), ResumePoint(tmp_path / "run", 0)
    write_folder(tmp_path / "in", config=dict(model.values))
    with pytest.raises(HfError, match="missing"):
        import_weights(StoredWeights(model, HfFolder(tmp_path / "in")), architecture(model), point.store, {})
    assert point.store.steps() == []
