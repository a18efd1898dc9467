"""A disk that fills up while a run writes to it: told as the user's to mend, and whatever was written stays whole."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.durable import write_durably
from hetero.checkpoint.errors import StorageFull
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.errors import is_disk_full
from hetero.monitoring.journal import Journal, read
from tests.e2e.bad_input.screens import JOB, Refusal, check_screen
from tests.e2e.command import ROOT, SCRIPT, short_folder
from tests.patience import RUN_S

NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: to who writes it, the same as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_journal_ends_with_the_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append({"step": 0})
        with files_of_at_most(100), pytest.raises(OSError, match="File too large") as caught:
            journal.append({"step": 1, "text": "x" * 200})
        assert is_disk_full(caught.value)
        assert path.read_text() == '{"step": 0}\n'
        journal.append({"step": 2})
    assert [record["step"] for record in read(path)] == [0, 2]


def test_a_manifest_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_durably(path, b"old")
    with files_of_at_most(100), pytest.raises(StorageFull, match=r"manifest.json was not written"):
        write_durably(path, b"x" * 200)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("manifest.json", b"old")]


def test_a_piece_is_whole_or_absent(tmp_path: Path) -> None:
    layout = TensorLayout.replicated((1000,), 1)
    state, places = {"w": {"parameter": torch.zeros(1000)}}, {"w": (layout, 0)}
    with files_of_at_most(1000), pytest.raises(StorageFull, match="--resume"):
        write_piece(tmp_path / "piece.safetensors", RankId("a", 0), state, places)
    assert not list(tmp_path.iterdir())


# A real run, on a file system of its own


@pytest.fixture
def place() -> Iterator[Path]:
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode:
        pytest.skip("this system lets nobody mount a small file system")
    with short_folder() as folder:
        (folder / "text.txt").write_bytes(bytes(range(256)) * 10)
        (folder / "small").mkdir()
        yield folder


def train(place: Path, job: str, size: str, run_dir: Path) -> Refusal:
    """Of a run that finds `place`/small to be a disk of that size; what it leaves there is copied to `place`/left."""
    path, small, left = place / "job.yaml", place / "small", place / "left"
    path.write_text(job.replace("source: python-stdlib", f"source: {place / 'text.txt'}"))
    command = shlex.join([str(SCRIPT), "train", str(path), "--run-dir", str(run_dir)])
    script = f"mount -t tmpfs -o size={size} tmpfs {small}; {command}; code=$?; cp -a {small} {left}; exit $code"
    own = {"HOME": str(place), "TMPDIR": str(place), "XDG_CACHE_HOME": str(place)}
    with (place / "screen").open("w+") as screen, (place / "output").open("w") as output:
        ended = subprocess.run(
            [*NAMESPACE, "sh", "-c", script], cwd=ROOT, env={**os.environ, **own}, timeout=RUN_S, check=False,
            stdin=subprocess.DEVNULL, stdout=output, stderr=screen,
        )  # fmt: skip
        screen.seek(0)
        text = screen.read()
    check_screen(ended.returncode, text)
    return Refusal(text)


@pytest.mark.slow
@pytest.mark.exhaustive  # a journal, a manifest and a piece, above, are in every run
def test_the_disk_of_the_run_directory_is_full(place: Path) -> None:
    job = JOB.replace("steps: 4", "steps: 100000")
    train(place, job, "96k", place / "small" / "run").says(
        "--run-dir",
        str(place / "small" / "run"),
        "the disk is full",
        "No space left on device",
        "make room",
        "--resume",
    )
    left = place / "left" / "run"
    for name in ("metrics.jsonl", "events.jsonl"):
        lines = (left / name).read_bytes().split(b"\n")
        assert lines.pop() == b"", "the last record is whole"
        assert all(json.loads(line) for line in lines)
        assert len(lines) > 3


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_disk_of_the_checkpoints_is_full(place: Path) -> None:
    job = JOB.replace("steps: 4", "steps: 1000").replace("hidden: 16", "hidden: 64")
    storage = place / "small"
    refusal = train(place, job.replace("every: 0", f"every: 2, storage: {storage}"), "1280k", place / "run")
    refusal.is_at(place / "job.yaml", "storage:", "checkpoint.storage")
    refusal.says(str(storage), "the disk is full", "safetensors was not written", "with --resume")
    store = CheckpointStore(place / "left" / "run")
    assert [path.name for path in store.root.iterdir()] == ["step-00000002"]
    store.verify(2)
    assert not list(store.root.rglob("*.tmp"))
