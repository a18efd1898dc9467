"""A checkpoint as a directory that others read: every bit of every tensor, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bridge.layout.layout import TensorLayout, whole
from bridge.rank import RankId
from hetero.checkpoint.adapters import write_adapter
from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.export import export, export_adapter
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.resume import CHECKPOINTS, ResumePoint
from hetero.checkpoint.store import CheckpointStore
from hetero.huggingface import shards
from hetero.huggingface.folder import HfFolder
from hetero.huggingface.reader import HfReader
from hetero.models.adapter import is_adapter
from hetero.models.as_hf import as_hf
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture, weights
from hetero.models.tuning import LoraOptions, Tuning
from hetero.models.weight_map import Block, WeightMap

DIMS = Dimensions(layers=1, hidden=8, heads=2, kv_heads=1, ffn=12, vocab=11)


def _logical(model: ModelDescription) -> dict[str, torch.Tensor]:
    told = architecture(model)
    specs = {spec.name: spec for unit in range(len(told.units)) for spec in told.tensors(unit, 1).values()}
    return {name: torch.randn(spec.layout.shape) for name, spec in specs.items()}


def _saved(run_dir: Path, tensors: dict[str, torch.Tensor]) -> ResumePoint:
    """By two owners, each of a half of the first dimension."""
    store, pieces = CheckpointStore(run_dir / CHECKPOINTS), []
    store.begin(3)
    for number in (0, 1):
        rank = RankId("a", number)
        places = {name: (TensorLayout.split(tuple(x.shape), 0, 2), number) for name, x in tensors.items()}
        parts = {name: x[slice(*places[name][0].region(number)[0])] for name, x in tensors.items()}
        state = {name: {"parameter": part, "exp_avg": part} for name, part in parts.items()}
        pieces.append(write_piece(store.piece_path(3, rank), rank, state, places))
    facts = {"consumed_sequences": 6, "consumed_tokens": 24, "job_fingerprint": "f", "plan": {}}
    store.commit(3, RunState(**facts, scalars={"updates": 3}), pieces)
    return ResumePoint(run_dir, 3)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_a_model_of_our_own_sizes_is_a_llama_or_a_qwen2(tied: bool, qkv_bias: bool, tmp_path: Path) -> None:
    dims = DIMS.model_copy(update={"tie_embeddings": tied, "qkv_bias": qkv_bias})
    model, tensors = as_hf(dims), _logical(dims)
    assert architecture(model).tensors(1, 1).keys() == architecture(dims).tensors(1, 1).keys()
    export(_saved(tmp_path / "run", tensors), model, (), tmp_path / "out", "hf", None)
    folder = HfFolder(tmp_path / "out")
    assert HfModel.of(folder.config).model_type == ("qwen2" if qkv_bias else "llama")
    assert ("lm_head.weight" in folder.tensors) != tied
    _assert_back(folder, tensors)


def _assert_back(folder: HfFolder, tensors: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    found, reader = weights(HfModel.of(folder.config)), HfReader(folder)
    assert folder.tensors.keys() == found.foreign.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found.read(name, whole(tuple(tensor.shape)), reader.get), tensor.to(dtype)), name


def test_the_type_is_that_of_the_configuration_or_as_asked(tmp_path: Path) -> None:
    tensors = _logical(DIMS)
    point = _saved(tmp_path / "run", tensors)
    model = HfModel.of({**as_hf(DIMS).values, "torch_dtype": "bfloat16"})
    export(point, model, (), tmp_path / "own", "hf", None)
    _assert_back(HfFolder(tmp_path / "own"), tensors, torch.bfloat16)
    export(point, model, (), tmp_path / "asked", "hf", "float16")
    _assert_back(HfFolder(tmp_path / "asked"), tensors, torch.float16)
    assert HfFolder(tmp_path / "asked").config["torch_dtype"] == "float16"


def test_in_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = _logical(DIMS)
    monkeypatch.setattr(shards.write_shards, "__defaults__", (1000,))
    export(_saved(tmp_path / "run", tensors), as_hf(DIMS), (), tmp_path / "out", "hf", None)
    folder = HfFolder(tmp_path / "out")
    assert len(folder.files) > 2
    _assert_back(folder, tensors)


def test_what_lies_beside_the_weights_comes_along(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    point = _saved(tmp_path / "run", _logical(DIMS))
    export(point, as_hf(DIMS), (tmp_path / "tokenizer.json",), tmp_path / "out", "hf", None)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {"config.json", "model.safetensors", "tokenizer.json"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_one_state_dict(tmp_path: Path) -> None:
    tensors = _logical(DIMS)
    export(_saved(tmp_path / "run", tensors), as_hf(DIMS), (), tmp_path / "out", "torch", None)
    stored = torch.load(tmp_path / "out" / "pytorch_model.bin", weights_only=True)
    assert stored.keys() == weights(as_hf(DIMS)).foreign.keys()
    assert torch.equal(stored["model.norm.weight"], tensors["units.3.norm.weight"])


def _refused(point: ResumePoint, target: Path, model: HfModel | None = None) -> CheckpointError:
    before = sorted(path.name for path in target.parent.iterdir())
    with pytest.raises(CheckpointError) as raised:
        export(point, model or as_hf(DIMS), (), target, "hf", None)
    assert sorted(path.name for path in target.parent.iterdir()) == before
    return raised.value


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    point = _saved(tmp_path / "run", _logical(DIMS))
    (tmp_path / "out").mkdir()
    assert _refused(point, tmp_path / "out").key == "DIR"


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        ({"layers": 2}, "missing: units.3.k.weight"),
        ({}, "of no use: more"),
        ({"ffn": 16}, "units.2.down.weight has the shape (8, 12), the model (8, 16)"),
    ],
)
def test_another_model_is_refused_by_name(ours: dict[str, Any], word: str, tmp_path: Path) -> None:
    tensors = _logical(DIMS) | ({} if ours else {"more": torch.zeros(2)})
    point = _saved(tmp_path / "run", tensors)
    assert word in _refused(point, tmp_path / "out", as_hf(DIMS.model_copy(update=ours))).rule


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = _saved(tmp_path / "run", _logical(DIMS))

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hetero.checkpoint.export.write_shards", fails)
    with pytest.raises(KeyboardInterrupt):
        export(point, as_hf(DIMS), (), tmp_path / "out", "hf", None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_transformers_computes_the_same_with_it(qkv_bias: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from tests.unit.hetero.models.whole_model import build, logical_tensors, loss_of, small, text

    dims = small(qkv_bias=qkv_bias, rope_theta=500.0, norm_eps=1e-3)
    units, batch = build(dims), text(dims)
    tensors = {name: one.parameter.detach() for name, one in logical_tensors(units).items()}
    export(_saved(tmp_path / "run", tensors), as_hf(dims), (), tmp_path / "out", "hf", None)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    logits_BTV = theirs(batch.tokens_BT).logits
    wanted = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.labels_BT.flatten(), reduction="sum")
    assert loss_of(units, batch).item() == pytest.approx(wanted.item(), rel=1e-6)


LORA = LoraOptions(rank=2, alpha=6.0)
TUNED = Tuning(lora=LORA)


def _with_adapters(model: HfModel) -> dict[str, torch.Tensor]:
    told = architecture(model, TUNED)
    specs = {spec.name: spec for unit in range(len(told.units)) for spec in told.tensors(unit, 1).values()}
    return {name: torch.randn(spec.layout.shape) for name, spec in specs.items()}


@pytest.mark.slow
def test_adapters_are_folded_into_the_weights_that_they_stand_beside(tmp_path: Path) -> None:
    model = as_hf(DIMS)
    tensors = _with_adapters(model)
    export(_saved(tmp_path / "run", tensors), model, (), tmp_path / "out", "hf", None, LORA)
    reader = HfReader(HfFolder(tmp_path / "out"))
    for ours, theirs in (("q", "self_attn.q_proj"), ("o", "self_attn.o_proj")):
        wanted = tensors[f"units.1.{ours}.weight"] + 3.0 * (
            tensors[f"units.1.{ours}.lora_b"] @ tensors[f"units.1.{ours}.lora_a"]
        )
        name = f"model.layers.0.{theirs}.weight"
        found = reader.get(name, tuple(slice(0, extent) for extent in wanted.shape))
        torch.testing.assert_close(found, wanted)


def test_what_adapters_add_to_frozen_weights_in_bfloat16_is_not_rounded_to_that(tmp_path: Path) -> None:
    model = as_hf(DIMS)
    tensors = {name: x if is_adapter(name) else x.bfloat16() for name, x in _with_adapters(model).items()}
    export(_saved(tmp_path / "run", tensors), model, (), tmp_path / "out", "hf", "float32", LORA)
    q, a, b = (tensors[f"units.1.q.{name}"].float() for name in ("weight", "lora_a", "lora_b"))
    found = HfReader(HfFolder(tmp_path / "out")).get("model.layers.0.self_attn.q_proj.weight")
    torch.testing.assert_close(found, q + 3.0 * (b @ a))


def test_adapters_alone_are_pefts(tmp_path: Path) -> None:
    model = as_hf(DIMS)
    tensors = _with_adapters(model)
    export_adapter(_saved(tmp_path / "run", tensors), model, tmp_path / "out", LORA, "the/model")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    modules = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["target_modules"] == modules
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 6.0)
    assert config["base_model_name_or_path"] == "the/model"
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(found) == 2 * len(modules)
    stem = "base_model.model.model.layers.0.mlp.gate_proj.lora"
    assert torch.equal(found[f"{stem}_A.weight"], tensors["units.2.gate.lora_a"])
    assert torch.equal(found[f"{stem}_B.weight"], tensors["units.2.gate.lora_b"])


@pytest.mark.parametrize("turned", [False, True])
def test_a_matrix_of_several_of_ours_has_an_adapter_of_all_their_factors(turned: bool, tmp_path: Path) -> None:
    """As fused query, key and value have; A's and B's are never turned."""
    shapes = {"units.1.q.weight": (4, 3), "units.1.k.weight": (2, 3)}
    order, blocks = (1, 0) if turned else (0, 1), []
    for name, rows in (("units.1.q.weight", slice(0, 4, 1)), ("units.1.k.weight", slice(4, 6, 1))):
        there = (slice(0, 3, 1), rows) if turned else (rows, slice(0, 3, 1))
        blocks.append(Block(name, whole(shapes[name]), "h.qk.weight", there, order))
    found = WeightMap(shapes, blocks)
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    for stem, out in (("units.1.q", 4), ("units.1.k", 2)):
        tensors |= {f"{stem}.lora_a": torch.randn(2, 3), f"{stem}.lora_b": torch.randn(out, 2)}
    point = _saved(tmp_path / "run", tensors)
    with CheckpointReader(point.store, point.step) as reader:
        write_adapter(tmp_path, reader, found, LORA, None)
    a, b = (load_file(tmp_path / "adapter_model.safetensors")[f"base_model.model.h.qk.lora_{x}.weight"] for x in "AB")
    stems = {name: name.removesuffix(".weight") for name in shapes}
    added = {name: tensors[f"{stem}.lora_b"] @ tensors[f"{stem}.lora_a"] for name, stem in stems.items()}
    wanted = found.write("h.qk.weight", added.__getitem__)
    torch.testing.assert_close(b @ a, wanted.t() if turned else wanted)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({"qk": 4}, {"qk": 12.0})


@pytest.mark.parametrize("lora", [None, LORA])
def test_whether_adapters_are_meant_is_said(lora: LoraOptions | None, tmp_path: Path) -> None:
    model = as_hf(DIMS)
    tensors = _logical(model) if lora else _with_adapters(model)
    with pytest.raises(CheckpointError, match="--merge"):
        export(_saved(tmp_path / "run", tensors), model, (), tmp_path / "out", "hf", None, lora)
    with pytest.raises(CheckpointError, match="--merge"):
        export_adapter(_saved(tmp_path / "other", _logical(model)), model, tmp_path / "out", LORA, None)
    assert not (tmp_path / "out").exists()


def test_what_trained_beside_adapters_has_no_place_in_pefts_file(tmp_path: Path) -> None:
    model = as_hf(DIMS)
    lora = LORA.model_copy(update={"train_also": ("norm*",)})
    with pytest.raises(CheckpointError, match="train_also"):
        export_adapter(_saved(tmp_path / "run", _with_adapters(model)), model, tmp_path / "out", lora, None)
