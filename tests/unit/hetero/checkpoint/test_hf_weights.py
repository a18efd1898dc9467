"""A checkpoint that is a model's directory: written by all owners at once, each its own bytes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.errors import DamagedCheckpoint
from hetero.checkpoint.hf_directory import HfDirectory
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.hf_weights import verify_weights, write_owned
from hetero.checkpoint.manifest import Manifest, RunState
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import MANIFEST, CheckpointStore
from hetero.huggingface.folder import INDEX, HfFolder
from hetero.huggingface.reader import HfReader
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture, family_names
from tests.tiny_models import tiny

RUN = RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", plan={})
Tensors = Mapping[str, torch.Tensor]


def logical(model: HfModel) -> dict[str, torch.Tensor]:
    told = architecture(model)
    specs = {spec.name: spec for unit in range(len(told.units)) for spec in told.tensors(unit, 1).values()}
    return {name: torch.randn(spec.layout.shape) for name, spec in specs.items()}


def save(
    store: CheckpointStore, layout: HfLayout, tensors: Tensors, ranks: int = 2, beside: tuple[Path, ...] = ()
) -> None:
    """Each owner has some rows, or columns, of every tensor that can be cut so; the last comes first."""
    pieces = []
    for number in reversed(range(ranks)):
        places = {name: _place(name, tensor, number, ranks) for name, tensor in tensors.items()}
        mine = {name: place for name, place in places.items() if place is not None}
        parts = {name: tensors[name][_box(*place)] for name, place in mine.items()}
        state = {name: {"parameter": part, "exp_avg": part} for name, part in parts.items()}
        pieces.append(write_piece(store.piece_path(4, RankId("a", number)), RankId("a", number), state, mine))
        folder = store.folder(4)
        assert isinstance(folder, Path)
        write_owned(layout, folder, state, mine)
    store.commit(4, RUN, pieces, HfDirectory(layout, beside))


def _place(name: str, tensor: torch.Tensor, number: int, ranks: int) -> tuple[TensorLayout, int] | None:
    shape, dim = tuple(tensor.shape), len(name) % tensor.dim() if tensor.dim() else 0
    if not shape or shape[dim] < ranks:
        return (TensorLayout.replicated(shape, 1), 0) if number == len(name) % ranks else None
    return TensorLayout.split(shape, dim, ranks), number


def _box(layout: TensorLayout, position: int) -> tuple[slice, ...]:
    return tuple(slice(*bounds) for bounds in layout.region(position))


def _kinds() -> list[Any]:
    """Some of which join, turn, interleave or stack."""
    some = {"gpt2", "gpt_neox", "llama", "mixtral", "phi3"}
    return [pytest.param(kind, marks=[] if kind in some else [pytest.mark.exhaustive]) for kind in family_names()]


@pytest.mark.parametrize("kind", _kinds())
def test_owners_of_parts_write_what_an_export_would(kind: str, tmp_path: Path) -> None:
    model = tiny(kind)
    layout, tensors = HfLayout(model, "bfloat16"), logical(model)
    save(store := CheckpointStore(tmp_path), layout, tensors, ranks=3)
    folder, reader = HfFolder(tmp_path / "step-00000004"), HfReader(HfFolder(tmp_path / "step-00000004"))
    assert folder.tensors.keys() == layout.map.foreign.keys()
    for name in layout.map.foreign:
        assert torch.equal(reader.get(name), layout.map.write(name, tensors.__getitem__).bfloat16()), name
    store.verify(4)
    verify_weights(store, 4)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text("{}")
    model = tiny("llama")
    save(CheckpointStore(tmp_path), HfLayout(model), logical(model), beside=(tmp_path / "tokenizer.json",))
    return tmp_path


def test_a_file_has_the_tensors_of_one_unit(saved: Path) -> None:
    """So ranks of two stages, which hosts may share, never write one page."""
    files = sorted((saved / "step-00000004").glob("model-*.safetensors"))
    assert [path.name for path in files] == [
        f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)
    ]
    assert {name.split(".")[-2] for name in load_file(files[2])} == {
        "post_attention_layernorm", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_any_changed_byte_is_found(saved: Path) -> None:
    store, random_ = CheckpointStore(saved), random.Random(3)
    for path in sorted((saved / "step-00000004").iterdir()):
        whole = path.read_bytes()
        at = random_.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedCheckpoint) as raised:
            _verify(store)
        assert path.name == MANIFEST or path.name in raised.value.rule
        path.write_bytes(whole)
    _verify(store)


def _verify(store: CheckpointStore) -> None:
    store.verify(4, directory=True)
    verify_weights(store, 4)


def test_weights_that_the_manifest_does_not_tell_of_are_not_whole(saved: Path) -> None:
    folder, store = saved / "step-00000004", CheckpointStore(saved)
    manifest = store.manifest(4)
    kept = tuple(told for told in manifest.directory if told.checksum is not None)
    (folder / MANIFEST).write_bytes(manifest.model_copy(update={"directory": kept}).encode())
    for path in folder.glob("model-*.safetensors"):
        path.unlink()
    store.verify(4, directory=True)
    with pytest.raises(DamagedCheckpoint, match=r"model-.* is not what the state says"):
        verify_weights(store, 4)


def test_the_directory_is_kept_whole_and_what_is_none_of_it_goes(saved: Path) -> None:
    folder, store = saved / "step-00000004", CheckpointStore(saved)
    there = {path.name for path in folder.iterdir()}
    assert {"config.json", "tokenizer.json", INDEX, MANIFEST} < there
    (folder / "left").touch()
    store.clean()
    assert {path.name for path in folder.iterdir()} == there
    next(folder.glob("model-00001-*")).unlink()
    with pytest.raises(DamagedCheckpoint, match=r"model-00001-of-00006\.safetensors is missing"):
        store.verify(4, directory=True)
    (folder / "tokenizer.json").write_text("changed by hand")
    assert store.verify(4).step == store.latest() == 4, "nothing is resumed from it"


def test_a_save_that_broke_off_is_no_directory(tmp_path: Path) -> None:
    """Weights alone do not open: config.json comes at the end."""
    model = tiny("llama")
    tensors = logical(model)
    places = {name: (TensorLayout.replicated(tuple(x.shape), 1), 0) for name, x in tensors.items()}
    store = CheckpointStore(tmp_path)
    write_owned(
        HfLayout(model), tmp_path / "step-00000004", {name: {"parameter": x} for name, x in tensors.items()}, places
    )
    assert not (tmp_path / "step-00000004" / "config.json").exists()
    assert store.steps() == []
    store.clean()
    assert not (tmp_path / "step-00000004").exists()


def test_a_manifest_without_a_directory_is_what_it_was() -> None:
    """So that older versions read it."""
    assert b"directory" not in Manifest(step=1, sequence=1, run=RUN, pieces=()).encode()
