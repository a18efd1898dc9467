"""The store alone: pieces are any files, so no torch is needed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import xxhash

from bridge.rank import RankId
from hetero.checkpoint.durable import checksum
from hetero.checkpoint.errors import CheckpointError, DamagedCheckpoint
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.store import CheckpointStore
from hetero.checkpoint.summary import Summary
from hetero.words.piece import StoredPiece, StoredTensor

RUN = RunState(consumed_sequences=32, consumed_tokens=8192, job_fingerprint="f", plan={"epoch": 0}, scalars={"lr": 0.5})
WHOLE = {"units.1.q.weight": {"shape": [4, 2], "region": [[0, 4], [0, 2]], "kinds": ["parameter"]}}


def piece(store: CheckpointStore, step: int, tensors: dict[str, Any] = WHOLE, index: int = 0) -> StoredPiece:
    rank = RankId("nvidia", index)
    path = store.piece_path(step, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"the bytes of a piece")
    size, digest = path.stat().st_size, checksum(path)
    told = {"rank": str(rank), "file": path.name, "size_bytes": size, "checksum": digest, "tensors": tensors}
    return StoredPiece.model_validate(told)


def save(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        store.commit(step, RUN, [piece(store, step)])


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def test_without_checkpoints_there_is_none(store: CheckpointStore) -> None:
    assert (store.steps(), store.latest(), store.prune(1)) == ([], None, [])
    store.clean()
    with pytest.raises(CheckpointError, match="there is no checkpoint of this step"):
        store.manifest(3)


def test_what_was_committed_is_read_back(store: CheckpointStore) -> None:
    save(store, 10, 9)
    save(store, 100)
    assert (store.steps(), store.latest()) == ([10, 9, 100], 100)
    assert store.verify(100).run == RUN
    assert store.manifest(100).pieces[0].tensors["units.1.q.weight"].region == ((0, 4), (0, 2))


def test_a_folder_without_manifest_is_no_checkpoint_and_goes_at_the_next_begin(store: CheckpointStore) -> None:
    save(store, 1)
    piece(store, 2)
    assert store.steps() == [1]
    assert store.begin(3) == store.folder(3)
    assert sorted(path.name for path in store.root.iterdir()) == ["step-00000001", "step-00000003"]


def test_begin_spares_whole_checkpoints_and_what_is_none_of_ours(store: CheckpointStore) -> None:
    save(store, 1)
    (store.root / "notes").mkdir()
    (store.folder(1) / "stray.tmp").write_bytes(b"")
    (store.folder(1) / ".ipynb_checkpoints").mkdir()
    (store.folder(1) / "link").symlink_to(store.root / "notes")
    store.begin(2)
    assert store.verify(1).step == 1
    assert (store.folder(1) / ".ipynb_checkpoints").is_dir()
    assert not (store.folder(1) / "link").is_symlink()
    assert (store.root / "notes").is_dir()
    assert not (store.folder(1) / "stray.tmp").exists()


def test_saving_a_step_again_replaces_it(store: CheckpointStore) -> None:
    save(store, 1, 2)
    before = store.manifest(1).pieces[0].file
    save(store, 1)
    assert store.manifest(1).pieces[0].file != before
    assert not (store.folder(1) / before).exists()
    assert (store.steps(), store.latest()) == ([2, 1], 1)


def test_prune_keeps_those_saved_last_even_of_lower_steps(store: CheckpointStore) -> None:
    save(store, 10, 40, 50, 20)
    assert store.prune(2) == [10, 40]
    assert store.steps() == [50, 20]
    assert sorted(path.name for path in store.root.iterdir()) == ["step-00000020", "step-00000050"]


def test_prune_keeps_those_of_a_multiple_too(store: CheckpointStore) -> None:
    save(store, 10, 20, 30, 40, 50)
    assert store.prune(1, keep_every=20) == [10, 30]
    assert store.prune(1, keep_every=25) == [20, 40]
    assert store.steps() == [50]


def save_after(store: CheckpointStore, *states: tuple[int, int, int]) -> None:
    """Steps with the updates that were done, and the skipped ones that are not made up for."""
    for step, updates, skips in states:
        scalars = {"updates": updates, "skips": skips}
        store.commit(step, RUN.model_copy(update={"scalars": scalars}), [piece(store, step)])


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        ([(2, 2, 0), (4, 4, 0), (6, 6, 0)], [6]),
        ([(2, 2, 0), (4, 3, 0), (6, 3, 2), (8, 3, 3)], [2, 8]),  # 4 holds what 6 and 8 hold
        ([(2, 1, 1), (4, 3, 0), (6, 4, 3), (8, 4, 3)], [4, 8]),
        ([(4, 4, 0), (6, 4, 2), (8, 4, 3)], [4, 8]),
        ([(4, 1, 3), (6, 1, 3), (8, 1, 3)], [8]),
        ([(2, 2, 0), (6, 2, 3), (8, 3, 2), (10, 5, 0)], [10]),
    ],
)
def test_prune_keeps_where_to_go_back_to_from_a_row_of_skipped_updates(
    store: CheckpointStore, states: list[tuple[int, int, int]], kept: list[int]
) -> None:
    save_after(store, *states)
    store.prune(1)
    assert store.steps() == kept


def test_it_is_kept_however_old_it_gets(store: CheckpointStore) -> None:
    save_after(store, (1, 1, 0), (2, 2, 0))
    for step in range(3, 20):
        save_after(store, (step, 2, min(step - 2, 3)))
        store.prune(3)
    assert store.steps() == [1, 17, 18, 19]


def test_what_prune_removes_is_no_checkpoint_from_the_first_moment(store: CheckpointStore) -> None:
    save(store, 1, 2)
    stop = mock.patch("hetero.checkpoint.store.remove_tree", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        store.prune(1)
    assert (store.folder(1).exists(), (store.folder(1) / "manifest.json").exists()) == (True, False)
    store.begin(3)
    assert not store.folder(1).exists()


def test_a_piece_that_is_not_there_cannot_be_committed(store: CheckpointStore) -> None:
    save(store, 1)
    lost = piece(store, 1)
    (store.folder(1) / lost.file).unlink()
    with pytest.raises(DamagedCheckpoint, match=r"of nvidia:0\) is missing"):
        store.commit(1, RUN, [lost])
    assert store.verify(1).step == 1


def box(*region: tuple[int, int], shape: tuple[int, ...] = (4, 2), kind: str = "parameter") -> dict[str, Any]:
    return {"units.1.q.weight": {"shape": shape, "region": region, "kinds": [kind]}}


@pytest.mark.parametrize(
    ("boxes", "fault"),
    [
        ([box((0, 2), (0, 2))], "hold 4 of 8 elements"),
        ([box((0, 2), (0, 2)), box((0, 2), (0, 2))], "two owners hold the same part"),
        ([box((0, 4), (0, 1)), box((0, 4), (0, 2))], "two owners hold the same part"),
        ([box((0, 2), (0, 2)), box((2, 4), (0, 2), shape=(5, 2))], "disagree on its shape"),
        ([box((0, 4), (0, 2)), box((0, 2), (0, 2), kind="exp_avg")], r"exp_avg\): its owners hold 4 of 8"),
        ([box(shape=()), box(shape=())], "two owners hold the same part"),
    ],
)
def test_state_that_is_not_held_exactly_once_cannot_be_committed(store: CheckpointStore, boxes, fault: str) -> None:
    pieces = [piece(store, 1, tensors, index) for index, tensors in enumerate(boxes)]
    with pytest.raises(DamagedCheckpoint, match=fault):
        store.commit(1, RUN, pieces)
    assert store.steps() == []


def test_verify_finds_a_changed_byte_and_names_the_piece_and_what_is_left(store: CheckpointStore) -> None:
    save(store, 1, 2)
    path = store.folder(2) / store.manifest(2).pieces[0].file
    path.write_bytes(path.read_bytes().replace(b"bytes", b"bites"))
    assert store.steps() == [1, 2]
    with pytest.raises(DamagedCheckpoint, match="has changed") as error:
        store.verify(2)
    assert path.name in error.value.rule
    assert error.value.remedy == "there are checkpoints of steps 1"


def test_a_cut_piece_makes_its_checkpoint_no_longer_count(store: CheckpointStore) -> None:
    save(store, 1, 2)
    path = store.folder(2) / store.manifest(2).pieces[0].file
    path.write_bytes(b"the")
    assert store.steps() == [1]
    with pytest.raises(DamagedCheckpoint, match="has 3 of 20 bytes"):
        store.verify(2)


def test_what_does_not_count_says_why(store: CheckpointStore) -> None:
    save(store, 1, 2, 3, 4, 5)
    (store.folder(1) / "manifest.json").unlink()
    (store.folder(2) / "manifest.json").write_text("[]")
    (store.folder(3) / store.manifest(3).pieces[0].file).unlink()
    (store.folder(4) / store.manifest(4).pieces[0].file).write_bytes(b"the")
    (store.folder(6) / "manifest.json").mkdir(parents=True)
    found = store.faults()
    assert [(fault.step, fault.sequence, fault.interrupted) for fault in found] == [
        (1, None, True), (2, None, False), (3, 3, False), (4, 4, False), (6, None, False),
    ]  # fmt: skip
    for fault, why in zip(found, ["not finished", "no JSON", "is missing", "3 of 20 bytes", "plain file"], strict=True):
        assert why in fault.why
    assert store.steps() == [5]


def test_what_is_removed_while_it_is_verified_is_damage(store: CheckpointStore) -> None:
    save(store, 1, 2)
    gone = mock.patch("hetero.checkpoint.store.checksum", side_effect=FileNotFoundError(2, "No such file"))
    with gone, pytest.raises(DamagedCheckpoint, match="cannot be read"):
        store.verify(2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"8192", b"8193"),
        lambda data: b"[]",
        lambda data: b"{}",
        lambda data: b"\xff",
    ],
)
def test_a_changed_manifest_is_noticed(store: CheckpointStore, spoil) -> None:
    save(store, 1, 2)
    path = store.folder(2) / "manifest.json"
    path.write_bytes(spoil(path.read_bytes()))
    assert store.steps() == [1]
    with pytest.raises(DamagedCheckpoint):
        store.verify(2)
    store.begin(3)
    assert store.folder(2).exists(), "damage is for a person to look at, not for us to remove"


def test_a_manifest_is_plain_json(store: CheckpointStore) -> None:
    save(store, 7)
    found = json.loads((store.folder(7) / "manifest.json").read_text())
    assert (found["version"], found["step"], found["run"]["plan"]) == (1, 7, {"epoch": 0})


@pytest.mark.slow
def test_the_driver_side_imports_no_torch() -> None:
    code = "import sys, hetero.checkpoint.resume, hetero.checkpoint.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def rewritten(store: CheckpointStore, step: int, change: Callable[[dict[str, Any]], None]) -> Path:
    """The manifest of a step with a change that its checksum covers."""
    path = store.folder(step) / "manifest.json"
    body = json.loads(path.read_text())
    del body["checksum"]
    change(body)
    digest = xxhash.xxh3_64(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"checksum": digest, **body}))
    return path


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "..", "", "a/b", "a\0b"])
def test_a_piece_lies_in_the_folder_of_its_checkpoint(store: CheckpointStore, file: str) -> None:
    save(store, 1, 2)
    (store.root / "secret").write_bytes(b"the bytes of a piece")
    rewritten(store, 2, lambda body: body["pieces"][0].update(file=file))
    with pytest.raises(DamagedCheckpoint, match="plain name"):
        store.verify(2)
    assert store.steps() == [1]


@pytest.mark.parametrize(
    "box",
    [
        {"shape": [4], "region": [[2, 6]]},
        {"shape": [4], "region": [[0, 4], [0, 1]]},
        {"shape": [4], "region": [[4, 0]]},
        {"shape": [-4], "region": [[0, -4]]},
    ],
)
def test_a_box_lies_in_its_tensor(store: CheckpointStore, box: dict[str, Any]) -> None:
    save(store, 1, 2)
    rewritten(store, 2, lambda body: body["pieces"][0].update(tensors={"w": {**box, "kinds": ["parameter"]}}))
    with pytest.raises(DamagedCheckpoint, match="lies outside"):
        store.verify(2)


HEADERS = ["[1]", '{"w": 5}', '{"w": {"dtype": 5}}', "[" * 100_000, "9" * 5000, "no JSON"]


def test_what_a_piece_holds_is_shown_where_it_is_one(store: CheckpointStore) -> None:
    save(store, 2)
    path = store.folder(2) / store.manifest(2).pieces[0].file
    for header in HEADERS:
        path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
        assert Summary.of(store, 2).dtypes == {}, header
    path.unlink()
    os.mkfifo(path)
    assert Summary.of(store, 2).dtypes == {}


def test_a_link_is_no_piece(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 1, 2)
    path = store.folder(2) / store.manifest(2).pieces[0].file
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedCheckpoint, match="is no file of its own"):
        store.verify(2)
    assert store.steps() == [1]


def test_a_manifest_that_nobody_wrote_ends_no_reader(store: CheckpointStore) -> None:
    save(store, 1, 2)
    path = store.folder(2) / "manifest.json"
    for text in ("[" * 100_000, '{"checksum": ' + "9" * 5000 + "}"):
        path.write_text(text)
        with pytest.raises(DamagedCheckpoint):
            store.manifest(2)
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    save(store, 2)
    rewritten(store, 2, lambda body: body["run"].update(job_facts=deep))
    with pytest.raises(DamagedCheckpoint):
        store.manifest(2)
    save(store, 2)
    rewritten(store, 2, lambda body: body["run"].update(scalars={"updates": "many"}))
    with pytest.raises(DamagedCheckpoint, match="a count"):
        store.manifest(2)
    for scale in ("much", 0.0, -1.0, math.inf, math.nan):
        save(store, 2)
        rewritten(store, 2, lambda body, scale=scale: body["run"].update(scalars={"loss_scale": scale}))
        with pytest.raises(DamagedCheckpoint, match="greater than 0"):
            store.manifest(2)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedCheckpoint):
        store.manifest(2)
    assert store.steps() == [1]


@pytest.mark.slow
def test_a_tensor_in_more_parts_than_any_plan_makes_is_not_compared(store: CheckpointStore) -> None:
    """Each with each would take minutes."""
    save(store, 1)
    part = {"shape": [9999], "kinds": ["parameter"]}
    one = piece(store, 2)
    boxes = (StoredTensor.model_validate(part | {"region": [[i, i + 1]]}) for i in range(9999))
    many = [one.model_copy(update={"tensors": {"w": box}}) for box in boxes]
    with pytest.raises(DamagedCheckpoint, match="more than 2048 parts"):
        store.commit(2, RUN, many)
