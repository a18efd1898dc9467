"""Where a run's checkpoints lie, and where a run goes on: `--resume RUN_DIR[@STEP]`. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hetero.checkpoint.address import Location, StoreAddress
from hetero.checkpoint.durable import make_folder, write_durably
from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.manifest import RunState, last_good
from hetero.checkpoint.store import CheckpointStore, Fault
from hetero.foreign import read_plain
from hetero.paths import local, path_or_address, scheme_of

CHECKPOINTS, ADDRESS = "checkpoints", "checkpoints.address"
MOST_ADDRESS_BYTES = 4096


def store_of(run_dir: Path) -> CheckpointStore:
    """The checkpoints of a run, wherever they lie. Raises CheckpointError if that cannot be made out."""
    try:
        text = read_plain(run_dir / ADDRESS, MOST_ADDRESS_BYTES).decode()
        return CheckpointStore(StoreAddress(path_or_address(text)))
    except FileNotFoundError:
        return CheckpointStore(run_dir / CHECKPOINTS)
    except (OSError, ValueError) as error:
        rule, remedy = f"it does not say where the checkpoints are ({error})", "see who has changed it"
        raise CheckpointError("checkpoint.storage", str(run_dir / ADDRESS), rule, remedy) from error


def checkpoint_folder(run_dir: Path, storage: str | None) -> Location:
    """Make the folder that a run saves into, and return its absolute path, or its address.

    It is `run_dir/checkpoints`, or, with a `storage` folder, `storage/NAME_OF_RUN_DIR`, to which that then links; of an
    address a file `checkpoints.address` tells. Raises CheckpointError when it cannot be made, or holds what another run
    saved.
    """
    if storage is not None and scheme_of(storage):
        return _at_address(run_dir, storage)
    place = run_dir / CHECKPOINTS
    folder = place.resolve() if storage is None else checkpoint_place(run_dir, storage)
    try:
        make_folder(folder)
        if place.resolve() != folder:
            _refuse_used(place, storage)
            _refuse_used(folder, storage)
            make_folder(run_dir)
            place.symlink_to(folder, target_is_directory=True)
    except OSError as error:
        rule = f"the folder cannot be made: {error}"
        raise CheckpointError("checkpoint.storage", storage, rule, "name a folder that you may write to") from error
    return folder


def _at_address(run_dir: Path, storage: str) -> StoreAddress:
    place = StoreAddress(storage) / run_dir.resolve().name
    if any(True for _ in place.iterdir()):
        rule = f"{place} may hold what another run saved"
        raise CheckpointError("checkpoint.storage", storage, rule, "use another run directory or storage")
    write_durably(run_dir / ADDRESS, str(place).encode())
    return place


def checkpoint_place(run_dir: Path, storage: str) -> Path:
    """Where in a `storage` folder a run saves."""
    return local(storage, "checkpoint.storage").resolve() / run_dir.resolve().name


def _refuse_used(folder: Path, storage: str | None) -> None:
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        rule = f"{folder} may hold what another run saved"
        raise CheckpointError("checkpoint.storage", storage, rule, "use another run directory or storage")


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint of an earlier run. `is_chosen` says that its step was asked for."""

    run_dir: Path
    step: int
    is_chosen: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str, key: str = "--resume") -> ResumePoint:
        """Read `RUN_DIR`, which means the checkpoint saved last, or `RUN_DIR@STEP`; `key` is what the user gave it as.

        Raises CheckpointError, which names the steps that exist, if there is no such checkpoint.
        """
        folder, step = split(text, key)
        store = store_of(folder)
        steps = store.steps()
        if not steps:
            rule = f"there is no whole checkpoint in {store.root}{_why(store.faults())}"
            raise CheckpointError(key, text, rule, "give a run whose job set checkpoint.every")
        if step is not None and step not in steps:
            faults = [fault for fault in store.faults() if fault.step == step]
            rule = f"there is no whole checkpoint of step {step} in {store.root}{_why(faults)}"
            raise CheckpointError(key, text, rule, f"use one of {_listed(folder, sorted(steps))}")
        return cls(folder, steps[-1]) if step is None else cls(folder, step, is_chosen=True)

    @property
    def store(self) -> CheckpointStore:
        return store_of(self.run_dir)

    @property
    def state(self) -> RunState:
        return self.store.manifest(self.step).run

    def newer_faults(self) -> list[Fault]:
        """What was saved after this checkpoint, or begun, and cannot be used."""
        mine = self.store.manifest(self.step).sequence
        return [
            fault
            for fault in self.store.faults()
            if (fault.sequence > mine if fault.sequence is not None else fault.step > self.step)
        ]

    def last_good(self, updates: int) -> str | None:
        """Where to go back to if updates are skipped after so many: this checkpoint, or an earlier one of its run or
        of the run which that was resumed from. None if there is none any more."""
        mine = self.store.manifest(self.step)
        saved = [manifest for manifest in self.store.saved() if manifest.sequence <= mine.sequence]
        if (good := last_good(saved, updates)) is not None:
            return str(ResumePoint(self.run_dir.resolve(), good.step))
        earlier = mine.run.scalars.get("last_good")
        try:
            return str(ResumePoint.parse(str(earlier))) if earlier else None
        except CheckpointError:
            return None

    def __str__(self) -> str:
        return f"{self.run_dir}@{self.step}"


def _why(faults: Iterable[Fault]) -> str:
    return "".join(f"; step {fault.step}: {fault.why}" for fault in faults)


def split(text: str, key: str) -> tuple[Path, int | None]:
    """Folder and step; a folder whose own name has an @ in it wins over a step. Raises CheckpointError where there is
    none."""
    whole, (before, at, step) = local(text, key), text.rpartition("@")
    remedy = "give RUN_DIR or RUN_DIR@STEP"
    if not at or os.path.isdir(whole):
        folder, number = whole, None
    elif not (step.isascii() and step.isdigit()):
        raise CheckpointError(key, text, f"what follows the @ is a step, a whole number, not {step!r}", remedy)
    else:
        folder, number = local(before, key), int(step)
    if not os.path.isdir(folder):  # also where that cannot be asked, as of a name that is too long
        raise CheckpointError(key, text, f"there is no folder {folder}", remedy)
    return folder, number


def _listed(folder: Path, steps: list[int]) -> str:
    return ", ".join(f"{folder}@{step}" for step in steps)
