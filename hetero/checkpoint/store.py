"""The checkpoints of one run, a folder for each. Torch-free: the driver commits, ranks write pieces.

    step-00000100/
      nvidia-0-5f3a90c1.safetensors     one file per rank that owns state
      model-00001-of-00006.safetensors  and a model's directory, where one was asked for
      config.json, ...
      manifest.json                     written last: a checkpoint exists if and only if its manifest does

A piece never takes the name of another, so that a step can be saved again without harming what it replaces.
"""

from __future__ import annotations

import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bridge.rank import RankId
from hetero.checkpoint.address import Location, StoreAddress, location_of
from hetero.checkpoint.durable import (
    checksum,
    make_folder,
    remove_tree,
    sync_folder,
    write_durably,
)
from hetero.checkpoint.errors import CheckpointError, DamagedCheckpoint
from hetero.checkpoint.hf_directory import HfDirectory
from hetero.checkpoint.manifest import Manifest, RunState, last_good
from hetero.words.piece import StoredPiece

MANIFEST = "manifest.json"
_FOLDER = re.compile(r"step-(\d+)")


class Fault(NamedTuple):
    """Why the folder of a step holds no whole checkpoint. `sequence` is None where no manifest says it, `interrupted`
    where there is none yet, as a save that broke off leaves it."""

    step: int
    sequence: int | None
    why: str
    interrupted: bool = False


class CheckpointStore:
    """The folder `root`, on a file system or in a store that all ranks and the driver reach: a path or an address."""

    def __init__(self, root: Location | str) -> None:
        self.root = location_of(root) if isinstance(root, str) else root

    def folder(self, step: int) -> Location:
        """Where the checkpoint of a step lies."""
        return self.root / f"step-{step:08d}"

    def piece_path(self, step: int, rank: RankId) -> Location:
        """A file name that no piece has had, for what `rank` owns."""
        return self.folder(step) / f"{rank.pool}-{rank.index}-{secrets.token_hex(4)}.safetensors"

    def begin(self, step: int) -> Location:
        """Make the folder of a step, and remove what interrupted saves left. No other save may be under way."""
        self.clean()
        make_folder(self.folder(step))
        return self.folder(step)

    def clean(self) -> None:
        """Remove what interrupted saves and removals left. No save may be under way."""
        for step, folder in self._folders().items():
            if not (folder / MANIFEST).exists():
                remove_tree(folder)
            else:
                self._remove_unlisted(step)

    def commit(
        self, step: int, run: RunState, pieces: Iterable[StoredPiece], directory: HfDirectory | None = None
    ) -> Manifest:
        """Turn the pieces, as `write_piece` described them, into a checkpoint, and what `write_owned` has written
        beside them into a model's `directory`. Raises DamagedCheckpoint if one is not there or state is missing from
        them; what was saved of the step before then stays."""
        sequence = 1 + max((manifest.sequence for manifest in self.saved()), default=0)
        folder = self.folder(step)
        files = directory.write(folder) if directory and isinstance(folder, Path) else ()
        manifest = Manifest(step=step, sequence=sequence, run=run, pieces=tuple(pieces), directory=files)
        self._refuse(manifest, [*self._misplaced(manifest), *manifest.gaps(), *self._strange(manifest)])
        write_durably(self.folder(step) / MANIFEST, manifest.encode())
        self._remove_unlisted(step)
        return manifest

    def manifest(self, step: int) -> Manifest:
        """Raises CheckpointError if there is no such checkpoint, DamagedCheckpoint if its manifest is unreadable."""
        path = self.folder(step) / MANIFEST
        try:
            return Manifest.read(path)
        except FileNotFoundError:
            rule = f"there is no checkpoint of this step in {self.root}"
            raise CheckpointError("step", step, rule, self._choices()) from None
        except OSError as error:
            rule = f"the manifest cannot be read ({error.strerror})"
            raise DamagedCheckpoint("step", step, rule, self._choices(step), file=str(path)) from error

    def steps(self) -> list[int]:
        """The steps of which a checkpoint exists, the one saved last at the end.

        That is the order of steps, unless the run was once resumed from an older one.
        """
        return [manifest.step for manifest in self.saved()]

    def saved(self) -> list[Manifest]:
        """The manifests of `steps`, in that order."""
        whole = [found for found in self._examined() if isinstance(found, Manifest)]
        return sorted(whole, key=lambda manifest: manifest.sequence)

    def faults(self) -> list[Fault]:
        """The folders of steps that do not count, in the order of steps."""
        return sorted(found for found in self._examined() if isinstance(found, Fault))

    def latest(self) -> int | None:
        """The step that was saved last, None if there is none."""
        return next(reversed(self.steps()), None)

    def verify(self, step: int, directory: bool = False) -> Manifest:
        """Read every byte of a checkpoint's state and compare checksums, of a model's `directory` too if asked for:
        nothing is resumed from that. Raises DamagedCheckpoint naming what is wrong."""
        manifest = self.manifest(step)
        beside = manifest.directory if directory else ()
        faults = [*self._misplaced(manifest), *manifest.gaps(), *(self._strange(manifest) if directory else ())]
        if not faults:
            named = [(piece.file, f" (of {piece.rank})", piece.checksum) for piece in manifest.pieces]
            named += [(told.file, "", told.checksum) for told in beside if told.checksum is not None]
            faults = [fault for told in named for fault in self._changed(step, *told)]
        self._refuse(manifest, faults)
        return manifest

    def prune(self, keep: int, keep_every: int = 0) -> list[int]:
        """Remove all but the `keep` checkpoints saved last, those of a multiple of `keep_every` steps, and what to go
        back to where the very last is not good; returns the steps that went."""
        saved = self.saved()
        in_need = bool(saved) and not saved[-1].run.is_good
        good = last_good(saved, saved[-1].run.updates) if in_need else None
        older = [manifest for manifest in saved[:-keep] if manifest is not good]
        old = [manifest.step for manifest in older if not keep_every or manifest.step % keep_every]
        for step in old:
            (self.folder(step) / MANIFEST).unlink()
            sync_folder(self.folder(step))
            remove_tree(self.folder(step))
        return old

    def _folders(self) -> dict[int, Location]:
        if not self.root.is_dir():
            return {}
        found = ((_FOLDER.fullmatch(path.name), path) for path in self.root.iterdir())
        return {int(match[1]): path for match, path in found if match}

    def _examined(self) -> Iterator[Manifest | Fault]:
        """Of each folder the manifest, if its pieces are all there."""
        for step, folder in self._folders().items():
            path = folder / MANIFEST
            try:
                manifest = Manifest.read(path)
            except FileNotFoundError:
                yield Fault(step, None, "its save was not finished", interrupted=True)
            except DamagedCheckpoint as error:
                yield Fault(step, None, error.rule)
            except OSError as error:
                yield Fault(step, None, f"its manifest cannot be read ({error.strerror})")
            else:
                misplaced = self._misplaced(manifest)
                yield Fault(step, manifest.sequence, _brief(misplaced)) if misplaced else manifest

    def _misplaced(self, manifest: Manifest) -> list[str]:
        """The pieces that are not there at their full size."""
        faults = []
        for piece in manifest.pieces:
            path = self.folder(manifest.step) / piece.file
            if (fault := _misplacement(path, piece.size_bytes)) is not None:
                faults.append(f"{piece.file} (of {piece.rank}) {fault}")
        return faults

    def _strange(self, manifest: Manifest) -> list[str]:
        """The files of its directory that are not there at their full size."""
        folder = self.folder(manifest.step)
        found = {told.file: _misplacement(folder / told.file, told.size_bytes) for told in manifest.directory}
        return [f"{file} {fault}" for file, fault in found.items() if fault is not None]

    def _changed(self, step: int, file: str, of: str, written: str) -> Iterator[str]:
        """What is wrong with the bytes of a file, if anything."""
        try:
            if checksum(self.folder(step) / file) != written:
                yield f"{file}{of} has changed since it was written"
        except OSError as error:
            yield f"{file}{of} cannot be read ({error.strerror})"

    def _refuse(self, manifest: Manifest, faults: list[str]) -> None:
        if not faults:
            return
        file = str(self.folder(manifest.step))
        raise DamagedCheckpoint("step", manifest.step, _brief(faults), self._choices(manifest.step), file=file)

    def _remove_unlisted(self, step: int) -> None:
        """Remove what an interrupted or replaced save of this step left; nothing, if its manifest is unreadable."""
        try:
            manifest = self.manifest(step)
            listed = {MANIFEST, *(piece.file for piece in manifest.pieces), *(told.file for told in manifest.directory)}
        except CheckpointError:
            return
        for path in self.folder(step).iterdir():
            if path.name not in listed and not _is_folder(path):
                path.unlink()

    def _choices(self, but: int | None = None) -> str:
        steps = [str(step) for step in self.steps() if step != but]
        return f"there are checkpoints of steps {', '.join(steps)}" if steps else "there is no other checkpoint"


def _brief(faults: Sequence[str]) -> str:
    more = f", and {len(faults) - 3} more faults" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def _misplacement(path: Location, size_bytes: int) -> str | None:
    """Why a path is not a piece of this size; None where it is. A link is none: nobody knows what it leads to later."""
    if isinstance(path, StoreAddress):
        size = path.size()
        return "is missing" if size is None else _missize(size, size_bytes)
    try:
        found = path.lstat()
    except OSError:
        return "is missing"
    if not stat.S_ISREG(found.st_mode):
        return "is no file of its own" if stat.S_ISLNK(found.st_mode) else "is no file"
    return _missize(found.st_size, size_bytes)


def _is_folder(path: Location) -> bool:
    """No save leaves one: it is of somebody who has opened the directory."""
    return isinstance(path, Path) and path.is_dir() and not path.is_symlink()


def _missize(found: int, wanted: int) -> str | None:
    return None if found == wanted else f"has {found} of {wanted} bytes"
