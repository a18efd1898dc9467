"""Whatever moment a save stops at, a whole checkpoint remains and loads bit-equal."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from unittest import mock

import pytest
import torch

from backends.cpu import CpuBackend
from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.hf_directory import HfDirectory
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.hf_weights import verify_weights, write_owned
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.state.loss_scale import LossScale
from hetero.engine.state.saving import Saver
from hetero.engine.state.state import State
from hetero.models.as_hf import as_hf
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.words.options import LossScaleOptions
from hetero.words.orders import Saved

MODEL = Dimensions(layers=1, hidden=8, heads=2, kv_heads=1, ffn=12, vocab=11)
DIRECTORY = HfLayout(as_hf(MODEL), "bfloat16")
LAYOUTS = {
    spec.name: TensorLayout.split(spec.layout.shape, len(spec.name) % len(spec.layout.shape), 2)
    for unit in range(len(architecture(MODEL).units))
    for spec in architecture(MODEL).tensors(unit, 1).values()
}
KINDS = ("parameter", "exp_avg")


def value(seed: int, name: str, kind: str) -> torch.Tensor:
    shape = LAYOUTS[name].shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed * 100 + len(name + kind) + ord(name[8])))


def save(store: CheckpointStore, step: int, seed: int, layout: HfLayout | None) -> None:
    pieces, layouts = [], LAYOUTS if layout else dict(list(LAYOUTS.items())[:2])
    for position in range(2):
        rank = RankId("ascend", position)
        state = {
            name: {kind: value(seed, name, kind)[_slices(layout, position)] for kind in KINDS}
            for name, layout in layouts.items()
        }
        places = {name: (layout, position) for name, layout in layouts.items()}
        pieces.append(write_piece(store.piece_path(step, rank), rank, state, places))
        if layout is not None:
            write_owned(layout, Path(str(store.folder(step))), state, places)
    store.commit(step, _run(seed), pieces, HfDirectory(layout) if layout else None)


def _slices(layout: TensorLayout, position: int) -> tuple[slice, ...]:
    return tuple(slice(*bounds) for bounds in layout.region(position))


def _run(seed: int) -> RunState:
    return RunState(consumed_sequences=seed, consumed_tokens=seed, job_fingerprint="", plan={})


def seed_of_latest(store: CheckpointStore, as_directory: bool = True) -> int:
    """Verifies the checkpoint saved last, compares every tensor in it, and returns the seed it was made from."""
    step = store.latest()
    assert step is not None
    seed = store.manifest(step).run.consumed_sequences
    if as_directory:
        store.verify(step)
        verify_weights(store, step)
    with CheckpointReader(store, step) as reader:
        for name in reader.names():
            for kind in KINDS:
                whole = tuple((0, extent) for extent in LAYOUTS[name].shape)
                assert torch.equal(reader.read(name, kind, whole), value(seed, name, kind))
    return seed


class Crash(BaseException):
    """Stands for the end of the process, which no handler sees."""


@contextmanager
def crash_before(count: int) -> Iterator[list[str]]:
    """The `count`-th change to the file system, and all after it, do not happen. Yields those that did."""
    done: list[str] = []

    def guarded(name: str):
        real = getattr(os, name)

        def change(*args, **kwargs):
            if len(done) >= count:
                raise Crash(name)
            done.append(name)
            return real(*args, **kwargs)

        return change

    with mock.patch.multiple(os, **{name: guarded(name) for name in ("mkdir", "fsync", "replace", "unlink", "rmdir")}):
        yield done


@pytest.mark.parametrize("layout", [None, pytest.param(DIRECTORY, marks=pytest.mark.exhaustive)], ids=["", "directory"])
@pytest.mark.parametrize("step", [1, 2], ids=["the same step", "the next step"])
@pytest.mark.slow
def test_a_crash_before_any_change_leaves_the_old_or_the_new_checkpoint(
    step: int, layout: HfLayout | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # whose place counts here, and not the disk's time
    ends: list[int] = []
    for count in range(200):
        store = CheckpointStore(tmp_path / str(count))
        save(store, 1, seed=1, layout=layout)
        try:
            with crash_before(count) as done:
                store.begin(step)
                save(store, step, seed=2, layout=layout)
                store.prune(1)
        except Crash:
            ends.append(seed_of_latest(store, as_directory=step == 2))  # what is saved again changes in place
            store.begin(3)
            save(store, 3, seed=3, layout=layout)
            store.prune(1)
            assert [path.name for path in store.root.iterdir()] == ["step-00000003"]
            assert len(list(store.folder(3).iterdir())) == 3 + len(store.manifest(3).directory)
        else:
            break
    assert seed_of_latest(store) == 2
    assert len(ends) == len(done) > 10
    assert ends == sorted(ends), "once the new checkpoint exists it stays"
    assert set(ends) == {1, 2}


def state_of(seed: int, position: int) -> State:
    """What a rank owns of it."""
    places = {name: (layout, position) for name, layout in LAYOUTS.items()}
    state = State(seed, LossScale.of(LossScaleOptions(), {}), places=places)
    for name, layout in LAYOUTS.items():
        box = _slices(layout, position)
        state.masters[name] = value(seed, name, "parameter")[box]
        state.moments[name] = {"exp_avg": value(seed, name, "exp_avg")[box]}
    return state


def save_for_ever(root: Path, seed: int, committed: Connection) -> None:
    """Two ranks save beside what they do to their state meanwhile, and the driver commits."""
    torch.set_num_threads(1)
    store, told = CheckpointStore(root), SimpleQueue[Saved]()
    savers = [Saver(RankId("ascend", position), CpuBackend(), told.put, print) for position in range(2)]
    while True:
        seed += 1
        store.begin(seed)
        states = [state_of(seed, position) for position in range(2)]
        for saver, state in zip(savers, states, strict=True):
            saver.save(store, state, layout=DIRECTORY)
        for saver, state in zip(savers, states, strict=True):
            saver.copied()
            for master in state.masters.values():
                master.fill_(torch.nan)
        pieces = [saved.piece for saved in (told.get(), told.get()) if saved.piece is not None]
        store.commit(seed, _run(seed), pieces, HfDirectory(DIRECTORY))
        committed.send(seed)
        store.prune(2)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.exhaustive)])
def test_kills_in_the_middle_of_saving_leave_a_whole_checkpoint(kills: int, tmp_path: Path) -> None:
    store, moments, seed, in_the_middle = CheckpointStore(tmp_path), random.Random(8), 0, 0
    fork = multiprocessing.get_context("fork")
    for _ in range(kills):
        ours, theirs = fork.Pipe(duplex=False)
        saver = fork.Process(target=save_for_ever, args=(tmp_path, seed, theirs))
        saver.start()
        theirs.close()
        known = ours.recv()
        time.sleep(moments.uniform(0, 0.03))
        saver.kill()
        saver.join()
        known = max([known, *_received(ours)])
        seed = seed_of_latest(store)
        assert known <= seed <= known + 1, "what was reported as saved is there"
        in_the_middle += any(not (folder / "manifest.json").exists() for folder in tmp_path.iterdir())
    assert in_the_middle >= kills // 4, "the kills were to hit saves that were under way"


def _received(pipe: Connection) -> Iterator[int]:
    try:
        while True:
            yield pipe.recv()
    except EOFError:
        return
