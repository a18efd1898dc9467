"""How often a run saves its state, and where: the `checkpoint:` section of a job file. Torch-free."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from hetero.paths import PathText


class CheckpointOptions(BaseModel):
    """Without `storage` checkpoints lie in the run directory, which then must be one that all hosts reach."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(0, ge=0, description="Steps between checkpoints, and one at the end; 0 saves none.")
    keep: int = Field(3, ge=1, description="Checkpoints that stay, beside the last good one while updates are skipped.")
    storage: PathText | None = Field(
        None, description="A folder that all hosts reach, as a path or a file:/// address."
    )
