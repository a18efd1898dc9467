"""The whole job: every owner's options, composed. Torch-free."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from backends.identify import AUTO
from balancer.options import BalanceOptions
from bridge.options import BridgeOptions
from hetero.checkpoint.options import CheckpointOptions
from hetero.cluster.options import PoolOptions
from hetero.data.kind import packs
from hetero.data.options import DataOptions
from hetero.job.checks import (
    check_format,
    check_links,
    check_model,
    check_pool,
    check_shadow,
    check_sizes,
    check_time_scale,
    check_trackers,
)
from hetero.job.tokenizer import with_default, with_directory
from hetero.masking import masked
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.options import ModelOptions
from hetero.models.tuning import EVERYTHING
from hetero.monitoring.options import MonitorOptions
from hetero.words.options import EvalOptions, TrainOptions

LONGEST_JOB_NAME = 100


class Job(BaseModel):
    """A job file. What needs more than one section to judge is checked here; each section checks itself.

    Raises pydantic's ValidationError for a malformed section and JobError for sections that do not fit together;
    `load_job` turns both into one JobError with file and line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "job",
        min_length=1,
        max_length=LONGEST_JOB_NAME,
        description="Names the run directory; the file's own name by default.",
    )
    model: ModelOptions = Field(..., description="What is trained: a preset's name, dimensions, or a directory.")
    data: DataOptions
    train: TrainOptions
    pools: dict[str, PoolOptions] = Field(
        ..., min_length=1, description="The chips, by a name of your choice: each pool is equal chips on fast links."
    )
    bridge: BridgeOptions = Field(BridgeOptions(), description="How bytes cross between pools.")
    balance: BalanceOptions = BalanceOptions()
    checkpoint: CheckpointOptions = Field(
        CheckpointOptions(), description="How often the state is saved, and where: by default in the run directory."
    )
    eval: EvalOptions = EvalOptions()
    monitor: MonitorOptions = Field(
        MonitorOptions(), description="Who watches, besides the files that are always written."
    )
    time_scale: Literal["auto"] | float = Field(
        "auto",
        description="How many times slower than their datasheet emulated chips and links run, all alike; `auto` "
        "measures the smallest safe one.",
    )

    @field_validator("name")
    @classmethod
    def _is_printed(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("should have no control characters")
        return name

    @field_validator("data")
    @classmethod
    def _has_tokenizer(cls, data: DataOptions, info: ValidationInfo) -> DataOptions:
        model = info.data.get("model")  # which is missing where it is malformed
        return data if model is None else with_default(data, model)

    @model_validator(mode="after")
    def _sections_fit(self) -> Job:
        check_sizes(self.pools, self.train)
        for name, pool in self.pools.items():
            check_pool(name, pool, self.train.precision)
        check_links(self.bridge, self.pools, self.train.precision)
        check_shadow(self.train, self.pools)
        check_time_scale(self.time_scale, self.emulated)
        check_model(self.model, self.data, self.pools, self.train.tuning)
        check_trackers(self.monitor)
        check_format(self.checkpoint, self.train.tuning)
        return self

    @property
    def emulated(self) -> bool:
        return any(pool.emulate is not None for pool in self.pools.values())

    @property
    def unidentified(self) -> tuple[str, ...]:
        """The pools whose chips are still to say what they are; see `hetero.job.planning.chips`."""
        return tuple(name for name, pool in self.pools.items() if pool.chip == AUTO)

    @cached_property
    def packs(self) -> bool:
        """Whether samples are of several documents, as its files say. They are asked once: the folder from which a path
        goes out may be gone later, as that of a submitted job is."""
        return packs(self.data)

    @property
    def saves_directory(self) -> bool:
        """Whether its checkpoints are models' directories too."""
        fits = self.model.hf is not None and self.train.lora is None and not self.checkpoint.in_store
        return self.checkpoint.format == "hf" or (self.checkpoint.format == "auto" and fits)

    def precision_of(self, pool: str) -> str:
        """What a pool computes in."""
        return self.pools[pool].precision or self.train.precision

    def text(self) -> DataOptions:
        """The data, with the directory of the model's tokenizer where it is asked for. Raises JobError where the model
        has no directory."""
        return with_directory(self.data, self.model)

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default filled in, to be shown and recorded; loading it gives an equal job, but for
        masked values, without which it cannot be run."""
        return masked(self.unmasked())

    def unmasked(self) -> dict[str, Any]:
        """The same with all values, for who runs it."""
        return self.model_dump(mode="json", by_alias=True)

    def facts(self) -> dict[str, Any]:
        """What decides the numbers of the run, as plain data: model, data and training, but neither pools, links nor
        plan. Of the text not where it lies, only how it is read: its content has a fingerprint of its own.

        What is held out counts, since nothing is trained on it. The length of the run counts only where the learning
        rate depends on it, so a finished run can be continued.
        """
        invariant = {"micro_batch", "replica_check_every", "loss_scale", "shadow"}
        if self.train.optimizer.schedule == "constant":
            invariant.add("steps")
        if self.train.tuning == EVERYTHING:
            invariant |= {"freeze", "lora"}
        return {
            "model": model_facts(self.model.resolve()),
            "data": self.data.facts(),
            "train": self.train.model_dump(mode="json", exclude=invariant),
            "eval": {"held_out_batches": self.eval.held_out_batches},
        }

    def fingerprint(self) -> str:
        """Names the facts."""
        return _hash(self.facts())

    def fingerprint_with_path(self) -> str:
        """The fingerprint as checkpoints have it that hold no facts: it covers the path of the text too."""
        facts = self.facts()
        deciding = {
            "model": facts["model"].get("dimensions"),
            "data": self.data.facts() | {"source": self.data.model_dump(mode="json")["source"]},
            "train": facts["train"],
        }
        if self.eval.held_out_batches:
            deciding |= facts["eval"]
        return _hash(deciding)


_NO_MATTER = {"architectures", "dtype", "torch_dtype", "transformers_version"}
"""Of config.json: who saved it, and in which type."""


def model_facts(model: ModelDescription) -> dict[str, Any]:
    """What decides the numbers of a model, as plain data."""
    if isinstance(model, Dimensions):
        return {"dimensions": model.model_dump(mode="json")}
    deciding = {key: value for key, value in model.values.items() if key not in _NO_MATTER and key[0] != "_"}
    return {"hf": deciding}


def _hash(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
