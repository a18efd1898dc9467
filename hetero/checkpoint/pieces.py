"""The tensors of a checkpoint: each owner writes what it owns, any rank reads the box that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from bridge.layout.layout import Region, Shape, TensorLayout, overlap
from bridge.rank import RankId
from hetero.checkpoint.address import Location, StoreAddress
from hetero.checkpoint.durable import make_folder, writing
from hetero.checkpoint.errors import CheckpointError, DamagedCheckpoint
from hetero.checkpoint.store import CheckpointStore
from hetero.checkpoint.tensor_file import TensorFile, write_tensors
from hetero.words.piece import StoredPiece, StoredTensor


def write_piece(
    path: Location,
    rank: RankId,
    state: Mapping[str, Mapping[str, torch.Tensor]],
    places: Mapping[str, tuple[TensorLayout, int]],
) -> StoredPiece:
    """Write what `rank` owns and return the piece's entry for `CheckpointStore.commit`.

    `state[name][kind]` is the shard of a logical tensor or of its moments, `places[name]` the layout and position that
    say which box of the tensor it is. On return the file is whole and on the disk. Raises StorageFull when there
    is no room for it, StorageFailed of a store that does not take it, ValueError when a shard's shape is not that of
    its box.
    """
    tensors = {name: _stored(name, kinds, *places[name]) for name, kinds in state.items()}
    make_folder(path.parent)
    values = {_key(name, kind): value for name, kinds in state.items() for kind, value in kinds.items()}
    with writing(path) as file:
        digest, size = write_tensors(file, {key: value.detach().cpu().contiguous() for key, value in values.items()})
    return StoredPiece(rank=str(rank), file=path.name, size_bytes=size, checksum=digest, tensors=tensors)


class CheckpointReader:
    """Reads any box of any tensor of a checkpoint, whatever boxes it was written in. A context manager.

    It reads only the bytes that it needs, and trusts them: `CheckpointStore.verify` compares checksums.
    """

    def __init__(self, store: CheckpointStore, step: int) -> None:
        self.manifest = store.manifest(step)
        self._folder = store.folder(step)
        self._boxes = self.manifest.boxes()
        self._files: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.clear()
        self._stack.close()

    def names(self) -> frozenset[str]:
        """The logical tensors of the checkpoint."""
        return frozenset(name for name, _ in self._boxes)

    def kinds(self, name: str) -> frozenset[str]:
        """The kinds of state that are stored of a tensor."""
        return frozenset(kind for known, kind in self._boxes if known == name)

    def shape(self, name: str, kind: str = "parameter") -> Shape:
        """The logical shape of a tensor. Raises CheckpointError if the checkpoint has no such state."""
        return self._places(name, kind)[0][1].shape

    def read(self, name: str, kind: str, region: Region) -> torch.Tensor:
        """The box `region` of a logical tensor's state, on the CPU, in the type that it was saved in.

        Raises CheckpointError if the checkpoint has no such state or the tensor no such box, DamagedCheckpoint if part
        of it is missing.
        """
        places = self._places(name, kind)
        self._check_box(name, region, places[0][1].shape)
        target: torch.Tensor | None = None
        filled = 0
        for piece, stored in places:
            box = overlap(stored.region, region)
            if box is None:
                continue
            part = self._load(piece, _key(name, kind), stored.region, box)
            if box == region:
                return part
            if target is None:
                target = torch.empty([stop - start for start, stop in region], dtype=part.dtype)
            target[within(box, region)] = part
            filled += part.numel()
        if target is None or filled != target.numel():
            rule = f"{filled} elements of the box {region} of {name} are stored"
            raise DamagedCheckpoint(name, kind, rule, "resume from another step", file=str(self._folder))
        return target

    def _places(self, name: str, kind: str) -> list[tuple[StoredPiece, StoredTensor]]:
        if (name, kind) in self._boxes:
            return self._boxes[name, kind]
        kinds = ", ".join(sorted(self.kinds(name))) or "nothing"
        rule = f"the checkpoint of step {self.manifest.step} holds {kinds} of this tensor"
        remedy = "resume with the model and the optimizer that it was saved with"
        raise CheckpointError(name, kind, rule, remedy, file=str(self._folder))

    def _check_box(self, name: str, region: Region, shape: Shape) -> None:
        whole = tuple((0, extent) for extent in shape)
        if len(region) != len(shape) or overlap(whole, region) != region:
            remedy = "resume with the model dimensions it was saved with"
            rule = f"the stored tensor has the shape {shape}"
            raise CheckpointError(name, region, rule, remedy, file=str(self._folder))

    def _load(self, piece: StoredPiece, key: str, region: Region, wanted: Region) -> torch.Tensor:
        """The box `wanted` of the `region` of a tensor that is stored in a piece. Raises DamagedCheckpoint where it is
        not as the manifest says: a checksum proves that nothing was damaged, and not who wrote it."""
        try:
            if piece.file not in self._files:
                self._files[piece.file] = self._stack.enter_context(self._open(piece))
            part = _part(self._files[piece.file], key, () if wanted == region else within(wanted, region))
        except FileNotFoundError as error:
            rule, remedy = "it is gone: the run that saved it may have removed it", "resume from a newer checkpoint"
            raise DamagedCheckpoint("piece", piece.file, rule, remedy, file=str(self._folder)) from error
        except (SafetensorError, ValueError, LookupError, TypeError) as error:
            raise self._not_told(piece, key, str(error).partition("\n")[0]) from error
        if part.shape != tuple(stop - start for start, stop in wanted):
            raise self._not_told(piece, key, f"another shape: {tuple(part.shape)}")
        return part

    def _open(self, piece: StoredPiece) -> Any:
        path = self._folder / piece.file
        if isinstance(path, StoreAddress):
            return nullcontext(TensorFile(self._stack.enter_context(path.open())))
        return safe_open(path, framework="pt")

    def _not_told(self, piece: StoredPiece, key: str, cause: str) -> DamagedCheckpoint:
        rule, remedy = f"it does not hold {key} as the manifest says ({cause})", "resume from another step"
        return DamagedCheckpoint("piece", piece.file, rule, remedy, file=str(self._folder))


def _stored(name: str, kinds: Mapping[str, torch.Tensor], layout: TensorLayout, position: int) -> StoredTensor:
    shape = layout.local_shape(position)
    for kind, value in kinds.items():
        if tuple(value.shape) != shape:
            raise ValueError(f"{kind} of {name} has the shape {tuple(value.shape)}, its box has {shape}")
    return StoredTensor(shape=layout.shape, region=layout.region(position), kinds=tuple(kinds))


def _part(file: Any, key: str, box: tuple[slice, ...]) -> torch.Tensor:
    """The `box` of what is stored, all of it without one."""
    if isinstance(file, TensorFile):
        return file.read(key, box)
    part: torch.Tensor = file.get_slice(key)[box] if box else file.get_tensor(key)
    return part


def _key(name: str, kind: str) -> str:
    return f"{name}/{kind}"


def within(box: Region, frame: Region) -> tuple[slice, ...]:
    """The box as slices, counted from where the frame begins."""
    return tuple(slice(start - zero, stop - zero) for (start, stop), (zero, _) in zip(box, frame, strict=True))
