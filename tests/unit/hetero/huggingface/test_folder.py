"""A model's directory by its headers, and what is refused of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hetero.huggingface.errors import HfError
from hetero.huggingface.folder import HfFolder, HfTensor
from hetero.huggingface.reader import HfReader
from hetero.huggingface.shards import write_shards
from tests.unit.hetero.huggingface.written import TENSORS, write_folder


@pytest.mark.parametrize("shards", [1, 2])
def test_tensors_are_told_and_read(shards: int, tmp_path: Path) -> None:
    folder = HfFolder(write_folder(tmp_path, shards=shards))
    assert {name: tensor.shape for name, tensor in folder.tensors.items()} == {
        name: tuple(value.shape) for name, value in TENSORS.items()
    }
    assert folder.config["model_type"] == "llama"
    reader = HfReader(folder)
    assert all(torch.equal(reader.get(name), value) for name, value in TENSORS.items())
    assert torch.equal(reader.get("a.weight", (slice(1, 3), slice(2, 4))), TENSORS["a.weight"][1:3, 2:4])


def test_types_are_told(tmp_path: Path) -> None:
    wanted = {"x": torch.bfloat16, "y": torch.float16, "z": torch.float32}
    write_folder(tmp_path, {name: torch.zeros(2, dtype=dtype) for name, dtype in wanted.items()})
    assert HfFolder(tmp_path).tensors["x"] == HfTensor("model.safetensors", "bfloat16", (2,))
    assert HfFolder(tmp_path).tensors["y"].dtype == "float16"


def _refused(folder: HfFolder) -> HfError:
    with pytest.raises(HfError) as raised:
        assert folder.config | folder.tensors
    return raised.value


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    error = _refused(HfFolder(tmp_path, "mine"))
    assert (error.key, error.value) == ("model.hf", "mine")
    assert "has no config.json" in error.rule


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_type": 1}', "[" * 99, '{"a": 1e999}'])
def test_a_configuration_that_is_none(text: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in _refused(HfFolder(tmp_path)).rule


def test_pickled_weights_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "model.safetensors").unlink()
    assert "no model.safetensors" in _refused(HfFolder(tmp_path)).rule
    (tmp_path / "pytorch_model.bin").touch()
    error = _refused(HfFolder(tmp_path))
    assert "pickled (pytorch_model.bin)" in error.rule
    assert "save_pretrained" in error.remedy


def test_other_types_are_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path, {"w": torch.zeros(2, dtype=torch.int8)})
    assert "w of model.safetensors is I8" in _refused(HfFolder(tmp_path)).rule


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "model.safetensors is no whole safetensors file" in _refused(HfFolder(tmp_path)).rule


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    (write_folder(tmp_path, shards=2) / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors, which" in _refused(HfFolder(tmp_path)).rule


def test_an_index_that_names_what_is_not_there(tmp_path: Path) -> None:
    file = write_folder(tmp_path, shards=2) / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["lost"] = "model-00001-of-00002.safetensors"
    file.write_text(json.dumps(index))
    assert "names lost in model-00001-of-00002.safetensors" in _refused(HfFolder(tmp_path)).rule


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..", 7])
def test_an_index_leads_nowhere_else(name: object, tmp_path: Path) -> None:
    file = write_folder(tmp_path, shards=2) / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": {"a": name}}))
    assert "cannot be read" in _refused(HfFolder(tmp_path)).rule


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    write_folder(tmp_path, shards=2)
    save_file(TENSORS, tmp_path / "model-00001-of-00002.safetensors")
    assert "b.bias lies in model-00001" in _refused(HfFolder(tmp_path)).rule


def test_equal_copies_have_one_fingerprint_and_others_another(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", shards=2)
    shutil.copytree(one, tmp_path / "two")
    fingerprint = HfFolder(one).fingerprint
    assert HfFolder(tmp_path / "two").fingerprint == fingerprint
    trained = write_folder(tmp_path / "trained", {**TENSORS, "b.bias": torch.full((4,), 1.5)}, shards=2)
    configured = write_folder(tmp_path / "configured", config={"model_type": "llama", "rope_theta": 5.0}, shards=2)
    assert len({fingerprint, HfFolder(trained).fingerprint, HfFolder(configured).fingerprint}) == 3


def test_shards_are_written_one_by_one(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shapes, asked = {name: tuple(value.shape) for name, value in TENSORS.items()}, list[str]()
    write_shards(tmp_path / ".", shapes, torch.bfloat16, lambda name: asked.append(name) or TENSORS[name], 34)
    (tmp_path / "model.safetensors").unlink()
    folder = HfFolder(tmp_path)
    assert asked == list(TENSORS)
    assert folder.files == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert all(torch.equal(HfReader(folder).get(name), value.bfloat16()) for name, value in TENSORS.items())


def test_views_of_one_tensor_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(8.0).view(2, 4)
    write_shards(tmp_path, {"x": (2, 2), "y": (4, 2)}, torch.float32, {"x": whole[:, 2:], "y": whole.T}.__getitem__)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    reader = HfReader(HfFolder(tmp_path))
    assert torch.equal(reader.get("x"), whole[:, 2:])
    assert torch.equal(reader.get("y"), whole.T)


def test_tensors_are_compared_by_their_bytes(tmp_path: Path) -> None:
    x = torch.arange(6.0).view(2, 3)
    others = {"same": x.clone(), "changed": x + (x == 5), "turned": x.clone().view(3, 2), "narrow": x.half()}
    folder = HfFolder(write_folder(tmp_path, {"x": x, **others}))
    assert [folder.equal("x", name) for name in others] == [True, False, False, False]
