"""How often a run saves its state, and where: the `checkpoint:` section of a job file. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hetero.paths import path_or_address, scheme_of


class CheckpointOptions(BaseModel):
    """Without `storage` checkpoints lie in the run directory, by way of the driver where a host does not reach it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(0, ge=0, description="Steps between checkpoints, and one at the end; 0 saves none.")
    keep: int = Field(3, ge=1, description="Checkpoints that stay, beside the last good one while updates are skipped.")
    keep_every: int = Field(0, ge=0, description="Those of a multiple of so many steps stay too; 0 keeps no more.")
    storage: Annotated[str, AfterValidator(path_or_address)] | None = Field(
        None,
        description="A folder that all hosts reach, as a path or a file:/// address, or the address of a store that"
        " fsspec knows, as s3://bucket/runs.",
    )
    format: Literal["auto", "hf", "hetero"] = Field(
        "auto",
        description="`hf`: transformers loads each checkpoint, too; `hetero`: the state alone; "
        "`auto`: the first where the model is one of Hugging Face's and no adapters are trained, outside stores.",
    )

    @property
    def in_store(self) -> bool:
        """Whether checkpoints go to an address."""
        return self.storage is not None and scheme_of(self.storage) is not None
