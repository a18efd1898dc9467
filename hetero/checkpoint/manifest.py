"""The table of contents of a checkpoint, which is also the proof that it is whole. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any, Literal

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bridge.layout.layout import Region, Shape, overlap
from hetero.checkpoint.address import Location
from hetero.checkpoint.errors import DamagedCheckpoint
from hetero.foreign import NotPlain, check_bounded, read_plain
from hetero.words.piece import StoredFile, StoredPiece, StoredTensor

Scalar = int | float | str | bool | None
MOST_BYTES = 256 << 20
"""Of a manifest: that of a large model has a line for each tensor of each rank."""

MOST_BOXES = 2048
"""Of a tensor: each is compared with each."""


class SavedText(BaseModel):
    """The tokens that a run reads: how many, and a hash of them and of the samples' length."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_tokens: int
    fingerprint: str


class RunState(BaseModel):
    """What a run needs beside its tensors in order to go on. `scalars` is the optimizer's own.

    `job_facts` are the settings that decide the numbers, and `text` is what they were computed on. Checkpoints of
    before these were kept have neither. `plan` is the one that the pieces were written under, for people: none
    is needed to read them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consumed_sequences: int
    consumed_tokens: int
    job_fingerprint: str
    job_facts: dict[str, Any] | None = None
    text: SavedText | None = None
    plan: dict[str, Any]
    scalars: dict[str, Scalar] = Field(default_factory=dict)

    @field_validator("scalars")
    @classmethod
    def _counts_are_numbers(cls, scalars: dict[str, Scalar]) -> dict[str, Scalar]:
        if not isinstance(scalars.get("updates") or 0, int):
            raise ValueError("updates is a count")
        scale = scalars.get("loss_scale")
        if scale is not None and not (isinstance(scale, int | float) and 0 < scale < math.inf):
            raise ValueError("loss_scale is a number greater than 0")
        if not isinstance(scalars.get("good_steps") or 0, int):
            raise ValueError("good_steps is a count")
        return scalars

    @property
    def updates(self) -> int:
        """Steps that were not skipped."""
        return int(self.scalars.get("updates") or 0)

    @property
    def is_good(self) -> bool:
        """Whether the step before it was an update, and all that were skipped earlier are made up for."""
        return not self.scalars.get("skips")


class Manifest(BaseModel):
    """A whole checkpoint: `step` updates are done. `sequence` counts the saves of the run, in their order. `directory`
    are the files that make it one of Hugging Face: nothing is resumed from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    step: int
    sequence: int
    run: RunState
    pieces: tuple[StoredPiece, ...]
    directory: tuple[StoredFile, ...] = ()

    def encode(self) -> bytes:
        """JSON with a checksum of its own. What older versions do not know is there only where it says something."""
        body = self.model_dump(mode="json", exclude=None if self.directory else {"directory"})
        return json.dumps({"checksum": _checksum(body), **body}, indent=1).encode()

    @classmethod
    def read(cls, path: Location) -> Manifest:
        """Raises OSError where there is none, DamagedCheckpoint for anything but a file that `encode` made."""
        try:
            data = _read_bounded(path)
        except NotPlain as error:
            remedy = "resume from another step"
            raise DamagedCheckpoint("manifest", None, str(error), remedy, file=str(path)) from error
        return cls.decode(data, str(path))

    @classmethod
    def decode(cls, data: bytes, file: str) -> Manifest:
        """Raises DamagedCheckpoint, naming `file`, for anything but the bytes that `encode` made."""
        remedy = "resume from another step"
        try:
            body = json.loads(data)
            check_bounded(body, MOST_BYTES)
            known = body.pop("checksum")
            if known != _checksum(body):
                rule = "the manifest has changed since it was written"
                raise DamagedCheckpoint("checksum", known, rule, remedy, file=file)
            return cls.model_validate(body)
        except ValidationError as error:
            rule = f"this version of Hetero cannot read the manifest: {error}"
            raise DamagedCheckpoint("manifest", body.get("version"), rule, remedy, file=file) from error
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise DamagedCheckpoint("manifest", None, "it is no JSON of a manifest", remedy, file=file) from error

    def boxes(self) -> dict[tuple[str, str], list[tuple[StoredPiece, StoredTensor]]]:
        """By tensor and kind of state, where its boxes lie."""
        found: dict[tuple[str, str], list[tuple[StoredPiece, StoredTensor]]] = {}
        for piece in self.pieces:
            for name, stored in piece.tensors.items():
                for kind in stored.kinds:
                    found.setdefault((name, kind), []).append((piece, stored))
        return found

    def gaps(self) -> Iterator[str]:
        """Says of each tensor that its boxes do not hold exactly once what is wrong."""
        for (name, kind), places in self.boxes().items():
            problem = _problem(tuple((stored.shape, stored.region) for _, stored in places))
            if problem:
                yield f"{name} ({kind}): {problem}"


@lru_cache(maxsize=4096)  # the tensors of a model repeat a few layouts layer after layer
def _problem(boxes: tuple[tuple[Shape, Region], ...]) -> str | None:
    if len(boxes) > MOST_BOXES:
        return f"it lies in more than {MOST_BOXES} parts, which no plan cuts a tensor into"
    shapes, regions = {shape for shape, _ in boxes}, [region for _, region in boxes]
    if len(shapes) > 1:
        return f"its owners disagree on its shape: {sorted(shapes)}"
    if not all(_lies_in(region, boxes[0][0]) for region in regions):
        return "a part of it lies outside it"
    if any(overlap(one, other) is not None for one, other in combinations(regions, 2)):
        return "two owners hold the same part of it"
    held = sum(prod(stop - start for start, stop in region) for region in regions)
    needed = prod(boxes[0][0])
    return None if held == needed else f"its owners hold {held} of {needed} elements"


def _lies_in(region: Region, shape: Shape) -> bool:
    return len(region) == len(shape) and all(
        0 <= start <= stop <= extent for (start, stop), extent in zip(region, shape, strict=True)
    )


def last_good(saved: Sequence[Manifest], updates: int) -> Manifest | None:
    """Of checkpoints in the order that they were saved in: where to go back to if updates are skipped after so many.

    Skipped updates change nothing, so what was saved after the last one holds the very state that led to them; one from
    before it is preferred."""
    good = [manifest for manifest in saved if manifest.run.is_good]
    earlier = [manifest for manifest in good if manifest.run.updates < updates]
    return next(reversed(earlier or good), None)


def _read_bounded(path: Location) -> bytes:
    if isinstance(path, Path):
        return read_plain(path, MOST_BYTES)
    with path.open() as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise NotPlain(f"{path} has more than {MOST_BYTES} bytes")
    return data


def _checksum(body: dict[str, Any]) -> str:
    return xxhash.xxh3_64(json.dumps(body, sort_keys=True).encode()).hexdigest()
