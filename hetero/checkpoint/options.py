"""How often a run saves its state, and where: the `checkpoint:` section of a job file. Torch-free."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator


class CheckpointOptions(BaseModel):
    """Without `storage` checkpoints lie in the run directory, which then must be one that all hosts reach."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(0, ge=0, description="Steps between checkpoints, and one at the end; 0 saves none.")
    keep: int = Field(3, ge=1, description="Checkpoints that stay, beside the last good one while updates are skipped.")
    storage: str | None = Field(None, description="A folder that all hosts reach, as a path or a file:// address.")

    @field_validator("storage")
    @classmethod
    def _is_a_folder(cls, value: str | None) -> str | None:
        path = value.removeprefix("file://") if value is not None else None
        if path is not None and "://" in path:
            raise ValueError("only folders (a path, or file:///path) can hold checkpoints; mount the store as a folder")
        if path == "":
            raise ValueError("the path is empty; name a folder, or leave storage out")
        return path
