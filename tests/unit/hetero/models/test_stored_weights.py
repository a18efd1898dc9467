"""Every tensor of a directory is one of its model's, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hetero.huggingface.errors import HfError
from hetero.huggingface.folder import HfFolder
from hetero.models.hf_model import HfModel
from hetero.models.stored_weights import StoredWeights
from tests.unit.hetero.huggingface.written import write_folder

CONFIG: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


def _tensors(config: dict[str, Any] = CONFIG) -> dict[str, torch.Tensor]:
    from hetero.models.registry import weights

    return {name: torch.randn(shape) for name, shape in weights(HfModel.of(config)).foreign.items()}


def _stored(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> StoredWeights:
    write_folder(folder, tensors, CONFIG | config)
    return StoredWeights(HfModel.of(CONFIG | config), HfFolder(folder, "mine"))


def _refusal(stored: StoredWeights) -> str:
    with pytest.raises(HfError) as raised:
        stored.check()
    assert (raised.value.key, raised.value.value) == ("model.hf", "mine")
    return str(raised.value.rule)


def test_a_whole_directory_is_taken(tmp_path: Path) -> None:
    stored = _stored(tmp_path, _tensors())
    stored.check()
    assert all(name == found for name, found in stored.names.items())


def test_what_is_missing_and_what_is_of_no_use_is_named(tmp_path: Path) -> None:
    tensors = _tensors()
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(2)
    del tensors[NORM]
    rule = _refusal(_stored(tmp_path, tensors))
    assert f"missing: {NORM}" in rule
    assert "of no use: model.layers.1.mlp.up_proj.weight" in rule


def test_a_wrong_shape_is_told_with_the_right_one(tmp_path: Path) -> None:
    tensors = _tensors()
    tensors[NORM] = torch.zeros(9)
    assert f"{NORM} has the shape (9,), the model (8,)" in _refusal(_stored(tmp_path, tensors))


def test_many_faults_are_counted(tmp_path: Path) -> None:
    tensors = {name: value for name, value in _tensors().items() if "layers" not in name}
    assert "and 6 more" in _refusal(_stored(tmp_path, tensors))


def test_a_tie_may_be_left_out_or_be_equal_and_nothing_else(tmp_path: Path) -> None:
    tensors = _tensors(CONFIG | {"tie_word_embeddings": True})
    assert HEAD not in tensors
    _stored(tmp_path / "out", tensors, tie_word_embeddings=True).check()
    there = tensors | {HEAD: tensors[EMBEDDING].clone()}
    _stored(tmp_path / "there", there, tie_word_embeddings=True).check()
    there[HEAD][10, 7] += 1
    rule = _refusal(_stored(tmp_path / "other", there, tie_word_embeddings=True))
    assert f"{HEAD} is said to be {EMBEDDING}" in rule


def test_names_may_lack_their_prefix_where_there_is_no_head(tmp_path: Path) -> None:
    tensors = _tensors(CONFIG | {"tie_word_embeddings": True})
    bare = {name.removeprefix("model."): value for name, value in tensors.items()}
    stored = _stored(tmp_path, bare, tie_word_embeddings=True)
    stored.check()
    assert stored.names[EMBEDDING] == "embed_tokens.weight"
