"""Megatron-Core's distributed checkpoints: as torch itself reads them, and back to the bit."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import load, save
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex

from bridge.layout.layout import whole
from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.export import export
from hetero.checkpoint.imported import import_megatron
from hetero.checkpoint.megatron_folder import MegatronFolder
from hetero.checkpoint.pieces import CheckpointReader
from hetero.checkpoint.resume import ResumePoint
from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel
from hetero.models.megatron_names import FAMILIES, megatron_map
from tests.tiny_models import tiny
from tests.unit.hetero.checkpoint.test_export import _logical, _saved

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
HEADS, GROUPS, PADDED = 4, 2, 64


def _exported(tmp_path: Path, model: HfModel) -> dict[str, torch.Tensor]:
    """To `out`; what was exported, which bfloat16 has exactly."""
    tensors = {name: x.bfloat16().float() for name, x in _logical(model).items()}
    export(_saved(tmp_path / "run", tensors), model, (), tmp_path / "out", "megatron", "bfloat16")
    return tensors


def _read_by_torch(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    found = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    load(found, checkpoint_id=folder, no_dist=True)
    return found


def _assert_imported(tmp_path: Path, model: HfModel, tensors: dict[str, torch.Tensor]) -> None:
    point = ResumePoint(tmp_path / "back", 0)
    import_megatron(MegatronFolder(tmp_path / "out"), model, point.store, {}, most_bytes=20_000)
    point.store.verify(0)
    with CheckpointReader(point.store, 0) as reader:
        assert reader.names() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(reader.read(name, "parameter", whole(tuple(tensor.shape))), tensor), name


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "qwen3" else [pytest.mark.exhaustive]) for kind in FAMILIES]
)
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    _assert_imported(tmp_path, tiny(kind), _exported(tmp_path, tiny(kind)))


def test_layers_are_stacked_and_packed_as_megatron_has_them(tmp_path: Path) -> None:
    """Told by hand: of each query group its queries, its key and its value; a gate before what it gates."""
    tensors, model = _exported(tmp_path, tiny("qwen2")), tiny("qwen2")
    folder = tmp_path / "out" / "iter_0000003"
    assert (tmp_path / "out" / "latest_checkpointed_iteration.txt").read_text() == "3"
    hidden, ffn = (int(model.values[key]) for key in ("hidden_size", "intermediate_size"))
    dim = hidden // HEADS
    shapes = {
        "decoder.layers.self_attention.linear_qkv.weight": (2, (HEADS + 2 * GROUPS) * dim, hidden),
        "decoder.layers.self_attention.linear_qkv.layer_norm_weight": (2, hidden),
        "decoder.layers.mlp.linear_fc1.weight": (2, 2 * ffn, hidden),
        "decoder.layers.mlp.linear_fc2.weight": (2, hidden, ffn),
        "decoder.final_layernorm.weight": (hidden,),
        "embedding.word_embeddings.weight": (61, hidden),
    }
    found = _read_by_torch(folder, shapes)
    for layer in range(2):
        attention, mlp = f"units.{1 + 2 * layer}", f"units.{2 + 2 * layer}"
        q, k, v = (tensors[f"{attention}.{part}.weight"] for part in "qkv")
        rows, each = [], HEADS // GROUPS * dim
        for group in range(GROUPS):
            rows += [q[group * each : (group + 1) * each], *(x[group * dim : (group + 1) * dim] for x in (k, v))]
        assert torch.equal(found["decoder.layers.self_attention.linear_qkv.weight"][layer].float(), torch.cat(rows))
        gated = torch.cat([tensors[f"{mlp}.gate.weight"], tensors[f"{mlp}.up.weight"]])
        assert torch.equal(found["decoder.layers.mlp.linear_fc1.weight"][layer].float(), gated)
        norm = found["decoder.layers.self_attention.linear_qkv.layer_norm_weight"][layer]
        assert torch.equal(norm.float(), tensors[f"{attention}.norm.weight"])


def test_what_others_cut_and_pad_otherwise_is_read(tmp_path: Path) -> None:
    """One chunk for all layers, a padded vocabulary, and what is none of the model's weights."""
    model = tiny("llama")
    found, tensors = megatron_map(model), {name: x.bfloat16().float() for name, x in _logical(model).items()}
    there = {name: found.write(name, tensors.__getitem__) for name in found.foreign}
    layers = sorted({name.split(".", 3)[3] for name in there if name.startswith("decoder.layers.")})
    stacked = {
        f"decoder.layers.{rest}": torch.stack([there[f"decoder.layers.{layer}.{rest}"] for layer in range(2)])
        for rest in layers
    }
    rows = there["embedding.word_embeddings.weight"]
    others = {
        "embedding.word_embeddings.weight": torch.cat([rows, rows.new_full((PADDED - len(rows), rows.shape[1]), 7.0)]),
        "decoder.final_layernorm.weight": there["decoder.final_layernorm.weight"],
        "optimizer.state.exp_avg.decoder.layers.mlp.linear_fc2.weight": torch.ones(3),
    }
    save(stacked | others, checkpoint_id=tmp_path / "out", no_dist=True)
    _assert_imported(tmp_path, model, tensors)


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    _exported(tmp_path, tiny("llama"))
    with pytest.raises(CheckpointError, match=r"missing: output_layer\.weight"):
        MegatronFolder(tmp_path / "out").check(megatron_map(tiny("mistral")).foreign)
    _exported(tmp_path / "q", tiny("qwen3"))
    with pytest.raises(CheckpointError, match=r"of no use: .*q_layernorm"):
        MegatronFolder(tmp_path / "q" / "out").check(megatron_map(tiny("mistral")).foreign)


def test_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Megatron's names are known here for llama"):
        export(_saved(tmp_path / "run", {}), tiny("gpt2"), (), tmp_path / "out", "megatron", None)
    assert not (tmp_path / "out").exists()


NORM, ROWS = "decoder.final_layernorm.weight", 8


def _lies(table: Metadata, **where: object) -> None:
    index = MetadataIndex(NORM, torch.Size([0]))
    table.storage_data[index] = dataclasses.replace(table.storage_data[index], **where)


def _cut(table: Metadata, *chunks: tuple[list[int], list[int]]) -> None:
    found = [ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks]
    table.state_dict_metadata[NORM] = dataclasses.replace(table.state_dict_metadata[NORM], chunks=found)


def _overlapping(table: Metadata) -> None:
    """Twice the first half, and never the second."""
    _cut(table, ([0], [ROWS // 2]), ([0], [ROWS // 2]))
    _lies(table, relative_path="half", offset=0)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_overlapping, rf"\.metadata has the same elements of {NORM} in two chunks"),
        (lambda table: table.storage_data.clear(), rf"\.metadata does not say where a chunk of {NORM} lies"),
        (lambda table: _lies(table, offset=-1), rf"\.metadata does not say where a chunk of {NORM} lies"),
        (lambda table: _lies(table, relative_path="half", offset=0), r"half has no tensor of the shape \(8,\)"),
        (lambda table: _lies(table, relative_path="list", offset=0), r"list has no tensor of the shape \(8,\)"),
        (lambda table: _lies(table, relative_path="text", offset=0), "text cannot be read"),
        (lambda table: _cut(table, ([0, 0], [1, ROWS])), rf"\.metadata has a chunk of {NORM} that is no part of it"),
    ],
    ids=["overlap", "unlisted", "before its file", "another shape", "no tensor", "no bytes of torch", "another rank"],
)
def test_a_table_that_fits_no_bytes_is_refused(spoil: Callable[[Metadata], None], why: str, tmp_path: Path) -> None:
    save({NORM: torch.ones(ROWS)}, checkpoint_id=tmp_path, no_dist=True)
    torch.save(torch.ones(ROWS // 2), tmp_path / "half")
    torch.save([1.0], tmp_path / "list")
    (tmp_path / "text").write_text("no tensor")
    table = pickle.loads((tmp_path / ".metadata").read_bytes())
    spoil(table)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(table))
    with pytest.raises(CheckpointError, match=why):
        MegatronFolder(tmp_path).get(NORM, (slice(0, ROWS),))


class Bomb:
    def __reduce__(self) -> object:
        return os.mkdir, ("gone-off",)


def test_no_code_of_a_table_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"asks for posix\.mkdir, which is no data"):
        MegatronFolder(tmp_path).check({})
    assert not Path("gone-off").exists()
