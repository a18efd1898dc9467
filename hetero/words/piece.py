"""What a rank says of the file that it wrote of a checkpoint, and the checkpoint's manifest keeps."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, NonNegativeInt

from bridge.layout.layout import Region, Shape


def _in_its_folder(file: str) -> str:
    if file in ("", ".", "..") or "/" in file or "\0" in file:
        raise ValueError("a piece lies in the folder of its checkpoint, under a plain name")
    return file


class StoredTensor(BaseModel):
    """The box `region` of a logical tensor of `shape`, once for each kind of state ("parameter", "exp_avg", ...)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: Shape
    region: Region
    kinds: tuple[str, ...]


class StoredPiece(BaseModel):
    """One file: what one rank owned. `file` is its name in the checkpoint's folder, `checksum` its xxh3-64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: str
    file: Annotated[str, AfterValidator(_in_its_folder)]
    size_bytes: NonNegativeInt
    checksum: str
    tensors: dict[str, StoredTensor]


class StoredFile(BaseModel):
    """One file of a checkpoint that is a directory. `checksum` is None of weights, which the state itself proves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, AfterValidator(_in_its_folder)]
    size_bytes: NonNegativeInt
    checksum: str | None = None
