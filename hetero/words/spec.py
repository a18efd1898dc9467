"""What a rank is told: one small spec, the same for all ranks of an epoch. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from balancer.plan.plan import Plan
from bridge.options import BridgeOptions
from hetero.models.description import ModelDescription
from hetero.models.tuning import EVERYTHING, Tuning
from hetero.words.options import EvalOptions, TrainOptions
from hetero.words.pool import Pool


class TextPart(BaseModel):
    """Where the documents of one source lie on this host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: str
    learnt: str | None = None
    """Which tokens are learnt; None means all."""
    pieces: str
    """How documents make samples."""
    vocab: int
    weight: float = 1.0
    """Its part of the samples, beside the others'."""

    @property
    def files(self) -> tuple[str, ...]:
        """All that are read."""
        return tuple(name for name in (self.tokens, self.learnt, self.pieces) if name is not None)

    def moved(self, places: Mapping[str, str]) -> TextPart:
        """With other paths for those that `places` names."""
        there = {name: getattr(self, name) for name in ("tokens", "learnt", "pieces")}
        return self.model_copy(update={name: places.get(path, path) for name, path in there.items()})


class TextRun(BaseModel):
    """Where the text lies on this host, the stream of tokens at `path` or documents in `parts`, and what it must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    fingerprint: str
    seq_len: int
    vocab: int
    """How many symbols its tokens are of."""
    packs: bool = False
    """Whether a sample holds several documents. All stages need to know where they end."""
    parts: tuple[TextPart, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """All that are read."""
        return tuple(name for part in self.parts for name in part.files) or (self.path,)

    def moved(self, places: Mapping[str, str]) -> TextRun:
        """With other paths for those that `places` names."""
        parts = tuple(part.moved(places) for part in self.parts)
        return self.model_copy(update={"path": places.get(self.path, self.path), "parts": parts})


class Capture(BaseModel):
    """Write the owners' gradients of some steps, after sync and before clipping, into `folder`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    steps: tuple[int, ...]


class RunSpec(BaseModel):
    """One epoch of a run: steps [start, steps) under one plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    model: ModelDescription
    train: TrainOptions
    text: TextRun
    plan: Plan
    pools: dict[str, Pool]
    bridge: BridgeOptions = BridgeOptions()
    start: int = 0
    steps: int
    time_scale: float = 1.0
    checkpoint_folder: str | None = None
    checkpoint_every: int = 0
    checkpoint_directory: bool = False
    """Whether what is saved is a model's directory too."""
    state: Literal["initial", "weights", "checkpoint", "live"] = "initial"
    """Where the epoch's state comes from: `live` from the ranks that hold it, which have done `start` steps."""
    weights_folder: str | None = None
    """The directory of the model, as the user named it, that the epoch begins from, if it begins from `weights`."""
    resume_folder: str | None = None
    """Where the checkpoint of step `start` lies that the epoch begins from, if it begins from one."""
    trace_every: int = 0
    evaluation: EvalOptions = EvalOptions()
    capture: Capture | None = None

    @model_validator(mode="after")
    def _a_checkpoint_lies_somewhere(self) -> RunSpec:
        if (self.state == "checkpoint") != (self.resume_folder is not None):
            raise ValueError("an epoch that begins from a checkpoint, and no other, has a resume_folder")
        if (self.state == "weights") != (self.weights_folder is not None):
            raise ValueError("an epoch that begins from weights, and no other, has a weights_folder")
        return self

    def saves_at(self, done: int) -> bool:
        """Whether a checkpoint is written once `done` steps are complete."""
        return self.next_save(done - 1) == done

    def next_save(self, done: int) -> int | None:
        """Of how many steps the first checkpoint is that is written after so many; None if none is."""
        if self.checkpoint_folder is None or self.checkpoint_every == 0 or done >= self.steps:
            return None
        return min((done // self.checkpoint_every + 1) * self.checkpoint_every, self.steps)

    def evaluates_at(self, done: int) -> bool:
        """Whether the held-out samples are measured once `done` steps are complete."""
        every = self.evaluation.every
        return every > 0 and (done % every == 0 or done == self.steps)

    def traces(self, step: int) -> bool:
        """Whether the actions of a step are recorded one by one."""
        return self.trace_every > 0 and (step % self.trace_every == 0 or step == self.steps - 1)


class CalibrationSpec(BaseModel):
    """What to time: each kind of unit, at each tensor-parallel size a pool may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelDescription
    tuning: Tuning = EVERYTHING
    pools: dict[str, Pool]
    tensor_parallel: dict[str, tuple[int, ...]]
    seq_len: int
    micro_batch: int
    also: tuple[int, ...] = ()
    """Other micro-batches to time, as far as this rank takes them whole."""
    strategies: bool = False
    """Whether to time backwards in two actions, and those that make values again, too."""
    packed: bool = False
    """Whether samples are of several documents."""
    precisions: dict[str, str]
    """By pool."""
    repeats: int = 3
    time_scale: float | None = None
    """Pace emulated chips by this; None times the bare arithmetic, from which a safe scale is chosen."""
