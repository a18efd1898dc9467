"""How to train: the `train:` section of a job file. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class OptimizerOptions(BaseModel):
    """The update rule. `lr` is the peak: it warms up linearly, then stays, or falls along a half cosine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0, description="On matrices only; norms and biases are never decayed.")
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD only.")
    clip: float | None = Field(1.0, gt=0, description="Largest gradient norm; null clips nothing.")


class EvalOptions(BaseModel):
    """Validation loss: how often, and over how many global batches of sequences that are never trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(0, ge=0, description="Steps between validations, and one at the end; 0 holds nothing out.")
    batches: int = Field(4, gt=0, description="Global batches that are held out.")

    @property
    def held_out_batches(self) -> int:
        return self.batches if self.every else 0


class TrainOptions(BaseModel):
    """Length, batch, precision and update rule of a run. Sizes are in sequences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(..., gt=0)
    global_batch: int = Field(..., gt=0, description="Sequences in one optimizer step, over all pipelines.")
    micro_batch: int = Field(1, gt=0, description="Sequences in one action; a plan may set another for a pipeline.")
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(0, ge=0, lt=2**32)
    optimizer: OptimizerOptions = OptimizerOptions()
    replica_check_every: int = Field(10, ge=0, description="Steps between comparisons of parameter hashes; 0 never.")

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> TrainOptions:
        if self.global_batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} must divide global_batch {self.global_batch}")
        return self
