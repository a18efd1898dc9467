"""A rank saves beside its steps: what they change meanwhile is not in the checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch

from backends.backend import Copy
from backends.cpu import CpuBackend
from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.errors import StorageFull
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.state import saving
from hetero.engine.state.loss_scale import LossScale
from hetero.engine.state.saving import Saver
from hetero.engine.state.state import State
from hetero.words.options import LossScaleOptions
from hetero.words.orders import Saved

ME, NAME, PATIENCE_S = RankId("a", 0), "units.1.q.weight", 60.0
WHOLE = ((0, 4), (0, 3))


def state_of(step: int) -> State:
    """Every number is that of the step."""
    state = State(step, LossScale.of(LossScaleOptions(), {}), places={NAME: (TensorLayout.replicated((4, 3), 1), 0)})
    state.values = {NAME: torch.full((4, 3), float(step))}
    state.make_masters([NAME])
    state.moments = {NAME: {"exp_avg": torch.full((4, 3), float(step))}}
    return state


def update(state: State) -> None:
    state.step += 1
    for tensor in (state.masters[NAME], *state.moments[NAME].values()):
        tensor += 1


class SlowDisk:
    """Takes nothing before it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.full = threading.Event(), False
        monkeypatch.setattr(saving, "write_piece", self._write)

    def _write(self, *args: Any) -> object:
        assert self.opened.wait(PATIENCE_S)
        if self.full:
            raise StorageFull("checkpoint.storage", "/full", "the disk is full", "make room")
        return write_piece(*args)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.opened.set()


@pytest.fixture
def told() -> list[Saved]:
    return []


def numbers(store: CheckpointStore, saved: Saved) -> set[float]:
    """That are in a checkpoint of this piece alone."""
    assert saved.piece is not None
    run = RunState(consumed_sequences=1, consumed_tokens=1, job_fingerprint="", plan={})
    store.commit(saved.step, run, [saved.piece])
    store.verify(saved.step)
    with CheckpointReader(store, saved.step) as reader:
        kinds = sorted(reader.kinds(NAME))
        assert kinds == ["exp_avg", "parameter"]
        return {number for kind in kinds for number in reader.read(NAME, kind, WHOLE).flatten().tolist()}


def test_steps_go_on_while_a_checkpoint_is_written_of_the_state_as_it_was(
    disk: SlowDisk, told: list[Saved], tmp_path: Path
) -> None:
    store, saver, state = CheckpointStore(tmp_path), Saver(ME, CpuBackend(), told.append, pytest.fail), state_of(4)
    saver.save(store, state)
    for _ in range(3):
        saver.copied()
        update(state)
    assert told == []
    disk.opened.set()
    saver.save(store, state)  # waits for the first
    assert [saved.step for saved in told] == [4]
    saver.wait()
    assert [numbers(store, saved) for saved in told] == [{4.0}, {7.0}]


def test_what_nobody_owns_is_told_too(told: list[Saved], tmp_path: Path) -> None:
    saver = Saver(ME, CpuBackend(), told.append, pytest.fail)
    saver.save(CheckpointStore(tmp_path), State(4, LossScale.of(LossScaleOptions(), {})))
    saver.wait()
    assert told == [Saved(4, None)]
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_is_told_at_once_and_ends_the_rank_at_the_latest_with_its_next_save(
    disk: SlowDisk, told: list[Saved], tmp_path: Path
) -> None:
    failed: list[Exception] = []
    heard = threading.Event()
    saver = Saver(ME, CpuBackend(), told.append, lambda error: (failed.append(error), heard.set()))
    disk.full = True
    disk.opened.set()
    saver.save(CheckpointStore(tmp_path), state_of(4))
    saver.copied()
    assert heard.wait(PATIENCE_S)
    with pytest.raises(StorageFull):
        saver.save(CheckpointStore(tmp_path), state_of(5))
    assert [type(error) for error in failed] == [StorageFull]
    assert told == []


def test_an_update_waits_until_an_emulated_chip_would_have_copied(told: list[Saved], tmp_path: Path) -> None:
    saver, state = Saver(ME, CpuBackend(), told.append, pytest.fail), state_of(4)
    began = perf_counter()
    saver.save(CheckpointStore(tmp_path), state, byte_s=0.05 / (2 * 4 * 12))
    assert saver.is_copying
    saver.copied()
    assert perf_counter() - began >= 0.05
    assert not saver.is_copying
    saver.wait()


class Chip(CpuBackend):
    """Its memory is none of the host's: meta tensors, whose copies are over when the test says so."""

    def __init__(self) -> None:
        self.copies: list[torch.Tensor] = []
        self.through = threading.Event()
        self.lost = False

    def copy_out(self, tensor: torch.Tensor, host: torch.Tensor) -> Copy:
        self.copies.append(host)
        chip = self

        class Slow(Copy):
            def wait(self) -> None:
                assert chip.through.wait(PATIENCE_S)
                if chip.lost:
                    raise RuntimeError("the chip is lost")
                host.fill_(9.0)

        return Slow()


def test_a_chip_copies_beside_its_work_to_memory_that_stays(told: list[Saved], tmp_path: Path) -> None:
    chip, store, state = Chip(), CheckpointStore(tmp_path), state_of(4)
    state.masters = {name: master.to("meta") for name, master in state.masters.items()}
    saver = Saver(ME, chip, told.append, pytest.fail)
    saver.save(store, state)
    assert saver.is_copying
    chip.through.set()
    saver.copied()
    state.step = 5
    saver.save(store, state)
    saver.wait()
    first, second = chip.copies
    assert first.data_ptr() == second.data_ptr()
    assert numbers(store, told[1]) == {9.0, 4.0}


def test_a_copy_that_fails_is_no_checkpoint(told: list[Saved], tmp_path: Path) -> None:
    """The memory that it should have filled has what the save before left there."""
    failed: list[Exception] = []
    chip, store, state = Chip(), CheckpointStore(tmp_path), state_of(4)
    state.masters = {name: master.to("meta") for name, master in state.masters.items()}
    saver = Saver(ME, chip, told.append, failed.append)
    chip.through.set()
    saver.save(store, state)
    saver.wait()
    state.step, chip.lost = 5, True
    saver.save(store, state)
    with pytest.raises(RuntimeError, match="the chip is lost"):
        saver.wait()
    assert [saved.step for saved in told] == [4]
    assert [str(error) for error in failed] == ["the chip is lost"]
    assert not store.piece_path(5, ME).exists()
