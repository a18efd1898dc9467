"""How to train: the `train` and `eval` sections of a job file, which ranks are told as they are. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from balancer.cost.workload import Update
from hetero.models.tuning import LoraOptions, Tuning


class OptimizerOptions(BaseModel):
    """The update rule. `lr` is the peak: it warms up linearly, then stays, or falls along a half cosine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["adamw", "sgd"] = Field("adamw", description="The update rule.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="After the warm-up: stay, or fall along a half cosine to `lr * min_lr_ratio`."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Where the cosine ends, relative to `lr`.")
    weight_decay: float = Field(0.0, ge=0, description="On matrices only; norms and biases are never decayed.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW: decay of the two moments.")
    eps: float = Field(1e-8, gt=0, description="AdamW: added to the root of the second moment.")
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD: how much of the last update stays.")
    clip: float | None = Field(1.0, gt=0, description="Largest gradient norm; `null` clips nothing.")

    @property
    def update(self) -> Update:
        """What a chip needs for it. Torch keeps the root of the second moment beside it where AdamW is not fused, and
        copies the gradients where SGD decays weights."""
        if self.name == "adamw":
            return Update(moments=2, temporaries=0, unfused=1)
        decayed = 1 if self.weight_decay else 0
        return Update(moments=1 if self.momentum else 0, temporaries=decayed, unfused=decayed)

    @field_validator("betas")
    @classmethod
    def _decay(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("each should be at least 0 and less than 1")
        return value


class EvalOptions(BaseModel):
    """Validation loss: how often, and over how many global batches of sequences that are never trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(0, ge=0, description="Steps between validations, and one at the end; 0 holds nothing out.")
    batches: int = Field(4, gt=0, description="Global batches that are held out.")

    @property
    def held_out_batches(self) -> int:
        return self.batches if self.every else 0


class ShadowOptions(BaseModel):
    """What of a run is computed again by a chip of another pool, so that drift is seen while it trains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(..., gt=0, description="Steps between two micro-batches that are computed again.")
    pool: str = Field(..., description="Whose first chip computes them; stages of all other pools take turns.")


class LossScaleOptions(BaseModel):
    """What the loss is multiplied by where a pool computes in float16."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    initial: float = Field(
        65536.0, ge=1, le=2.0**32, description="The first scale of the mean loss; halved whenever it is too large."
    )
    grow_every: int = Field(2000, gt=0, description="Good steps in succession after which it is doubled.")


class TrainOptions(BaseModel):
    """Length, batch, precision and update rule of a run. Sizes are in sequences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(..., gt=0, description="Optimizer steps.")
    global_batch: int = Field(..., gt=0, description="Sequences in one optimizer step, over all pipelines.")
    micro_batch: int = Field(1, gt=0, description="Sequences in one action; a plan may set another for a pipeline.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of the arithmetic, where a pool has no other; master values and sums are float32."
    )
    loss_scale: LossScaleOptions = LossScaleOptions()
    seed: int = Field(0, ge=0, lt=2**32, description="Decides initial values and the order of samples, under any plan.")
    optimizer: OptimizerOptions = OptimizerOptions()
    freeze: tuple[str, ...] = Field(
        (),
        description="Tensors that stay as they are, by name: `units.3.q.weight`, `q.weight` or `attention.q.weight`, "
        "where `*` is anything.",
    )
    lora: LoraOptions | None = Field(None, description="Low-rank adapters; they alone train, not the model.")
    replica_check_every: int = Field(10, ge=0, description="Steps between comparisons of parameter hashes; 0 never.")
    shadow: ShadowOptions | None = Field(
        None, description="Whether another pool, best one of another family, computes a little of it again."
    )

    @property
    def tuning(self) -> Tuning:
        """What of the model trains."""
        return Tuning(freeze=self.freeze, lora=self.lora)

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> TrainOptions:
        if self.global_batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} must divide global_batch {self.global_batch}")
        return self
