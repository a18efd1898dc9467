"""Checkpoints in a store behind an address of fsspec, which knows neither rename nor folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.address import StoreAddress
from hetero.checkpoint.durable import writing
from hetero.checkpoint.errors import CheckpointError, DamagedCheckpoint, StorageFailed
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.resume import ResumePoint, checkpoint_folder
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.host.shared_files import SharedFolder, reach

RUN = RunState(consumed_sequences=1, consumed_tokens=1, job_fingerprint="", plan={})
NAME, LAYOUT = "units.1.q.weight", TensorLayout.split((6, 4), 0, 2)
VALUE = torch.arange(24.0).view(6, 4)


@pytest.fixture(params=["memory://runs/first", "local://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CheckpointStore]:
    yield CheckpointStore(request.param if "runs" in request.param else f"local://{tmp_path}/runs/first")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def save(store: CheckpointStore, step: int) -> None:
    pieces = []
    for position in range(2):
        rank, (rows, _) = RankId("nvidia", position), LAYOUT.region(position)
        state = {NAME: {"parameter": VALUE[slice(*rows)] + step}}
        pieces.append(write_piece(store.piece_path(step, rank), rank, state, {NAME: (LAYOUT, position)}))
    store.commit(step, RUN, pieces)


def test_what_was_saved_is_whole_and_any_box_of_it_is_read(store: CheckpointStore) -> None:
    assert store.steps() == []
    for step in (1, 2, 3):
        save(store, step)
    assert store.steps() == [1, 2, 3]
    assert store.prune(2) == [1]
    assert store.steps() == [2, 3]
    assert sorted(place.name for place in store.root.iterdir()) == ["step-00000002", "step-00000003"]
    store.verify(3)
    with CheckpointReader(store, 3) as reader:
        assert torch.equal(reader.read(NAME, "parameter", ((1, 5), (1, 3))), VALUE[1:5, 1:3] + 3)


def test_a_save_that_broke_off_counts_for_nothing_and_goes(store: CheckpointStore) -> None:
    save(store, 1)
    rank, state = RankId("nvidia", 0), {NAME: {"parameter": VALUE[:3]}}
    write_piece(store.piece_path(2, rank), rank, state, {NAME: (LAYOUT, 0)})
    assert [(fault.step, fault.interrupted) for fault in store.faults()] == [(2, True)]
    store.clean()
    assert [place.name for place in store.root.iterdir()] == ["step-00000001"]


def _break_off(place: StoreAddress) -> None:
    with writing(place) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_a_file_that_breaks_off_never_has_its_name(tmp_path: Path) -> None:
    place = StoreAddress(f"local://{tmp_path}/piece")
    with pytest.raises(KeyboardInterrupt):
        _break_off(place)
    assert not place.exists()


def test_a_flipped_bit_is_found(store: CheckpointStore) -> None:
    save(store, 1)
    piece = store.manifest(1).pieces[1]
    place = store.folder(1) / piece.file
    with place.open() as file:
        content = bytearray(file.read())
    content[-5] ^= 4
    with writing(place) as file:
        file.write(content)
    with pytest.raises(DamagedCheckpoint, match=rf"{piece.file} \(of nvidia:1\) has changed"):
        store.verify(1)
    place.unlink()
    assert [fault.why for fault in store.faults()] == [f"{piece.file} (of nvidia:1) is missing"]


def test_a_missing_package_is_named_with_what_to_install() -> None:
    with mock.patch.dict(sys.modules, {"s3fs": None}), pytest.raises(CheckpointError) as error:
        StoreAddress("s3://bucket/runs").exists()
    assert (error.value.key, error.value.value) == ("checkpoint.storage", "s3://bucket/runs")
    assert "s3fs" in error.value.rule
    assert error.value.remedy.startswith("install it for the driver and for the ranks")


def test_a_run_says_where_its_checkpoints_are_and_another_does_not_take_its_place(tmp_path: Path) -> None:
    run_dir, storage = tmp_path / "first", f"local://{tmp_path}/kept"
    run_dir.mkdir()
    place = checkpoint_folder(run_dir, storage)
    save(CheckpointStore(place), 4)
    assert ResumePoint.parse(str(run_dir)).store.root == StoreAddress(f"{storage}/first")
    assert str(ResumePoint.parse(f"{run_dir}@4")) == f"{run_dir}@4"
    with pytest.raises(CheckpointError, match="may hold what another run saved"):
        checkpoint_folder(run_dir, storage)
    (run_dir / "checkpoints.address").write_text("http://elsewhere/x")
    with pytest.raises(CheckpointError, match="does not say where"):
        ResumePoint.parse(str(run_dir))


def test_a_host_proves_that_it_reaches_a_store(tmp_path: Path) -> None:
    (tmp_path / ".reached-1").touch()
    folder = SharedFolder(f"local://{tmp_path}", ".reached-1", written=True)
    assert reach(folder, "nvidia@0") is None
    assert [path.name for path in tmp_path.iterdir()] == [".reached-1"]
    with mock.patch.dict(sys.modules, {"s3fs": None}):
        assert "s3fs" in str(reach(replace(folder, path="s3://bucket/runs"), "nvidia@0"))


def test_what_a_store_raises_is_explained() -> None:
    broken = mock.patch.object(fsspec.get_filesystem_class("memory"), "ls", side_effect=RuntimeError("403"))
    with broken, pytest.raises(StorageFailed, match=r"cannot be listed \(RuntimeError: 403\)"):
        list(StoreAddress("memory://runs").iterdir())
