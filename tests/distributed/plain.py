"""The same job in one process without any of the engine: whole model, whole batch, torch's own optimizers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from backends.operators import Operators
from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.data.source import Prepared, prepare
from hetero.data.text import orders, text_stream
from hetero.job.file.load import load_job
from hetero.layers.auxiliary import AuxiliaryLoss
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.description import ModelDescription
from hetero.models.registry import architecture
from hetero.models.tuning import EVERYTHING, Tuning
from hetero.models.unit_module import build_unit
from hetero.words.options import OptimizerOptions
from tests.distributed.documents import micro_batch
from tests.distributed.fleet import SEQ_LEN, Job


@dataclass(frozen=True)
class PlainStep:
    """The mean loss of a step's tokens, its gradients, and their norm before clipping."""

    loss: float
    norm: float
    gradients: dict[str, np.ndarray]


class PlainModel:
    """All units of a model with tensor-parallel size 1, in float32."""

    def __init__(self, dims: ModelDescription, seed: int, tuning: Tuning = EVERYTHING) -> None:
        self.dims = dims
        self.auxiliary, count = AuxiliaryLoss(), len(architecture(dims).units)
        builder = Builder(TensorGroup(), Operators(), seed=seed, auxiliary=self.auxiliary)
        self.units = [build_unit(dims, unit, builder, tuning=tuning) for unit in range(count)]
        self.parameters = {tensor.name: tensor.parameter for unit in self.units for tensor in unit.tensors()}
        self.trained = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}

    def unsettle(self) -> PlainModel:
        """Moves every value off the special ones that training begins with."""
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters.values()):
                waves = torch.sin(torch.arange(parameter.numel()) * 0.7 + number).view(parameter.shape)
                parameter.add_(waves, alpha=0.2 if parameter.dim() == 1 else 0.02)
        return self

    def loss_sum(self, batch: Batch) -> torch.Tensor:
        boundary: dict[str, torch.Tensor] = {}
        for unit in self.units:
            boundary = unit(boundary, batch)
        return boundary["loss"]

    def save(self, root: Path) -> None:
        """As a checkpoint of step 0."""
        store, rank = CheckpointStore(root), RankId("plain", 0)
        places = {name: (TensorLayout.replicated(tuple(p.shape), 1), 0) for name, p in self.parameters.items()}
        state = {name: {"parameter": parameter.detach()} for name, parameter in self.parameters.items()}
        store.begin(0)
        piece = write_piece(store.piece_path(0, rank), rank, state, places)
        store.commit(0, RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", plan={}), [piece])


class GlobalBatches:
    """What each step of a job trains on, as one batch."""

    def __init__(self, text: Prepared, job: Job, seq_len: int = SEQ_LEN) -> None:
        told = text.told(seq_len)
        self._stream, self._size = text_stream(told), job.train.global_batch
        held_out = job.evaluation.held_out_batches * self._size
        self._training, self._validation = orders(told, self._stream, job.train.seed, held_out)

    def __getitem__(self, step: int) -> Batch:
        return micro_batch(self._stream, self._training, step * self._size, self._size)

    def held_out(self, number: int) -> Batch:
        return micro_batch(self._stream, self._validation, number * self._size, self._size)


class PlainTraining:
    """A plain loop over whole batches; its optimizer's state can be looked at afterwards."""

    def __init__(self, job: Job, text: Prepared, model: PlainModel, seq_len: int = SEQ_LEN) -> None:
        self.job, self.model = job, model
        self._batches = GlobalBatches(text, job, seq_len)
        self.forget()

    def forget(self) -> None:
        """Begins with an optimizer that knows nothing."""
        self.optimizer = _optimizer(self.job.train.optimizer, list(self.model.trained.values()))

    def steps(self, until: int, start: int = 0) -> Iterator[PlainStep]:
        options, parameters = self.job.train.optimizer, self.model.trained
        for number in range(start, until):
            batch = self._batches[number]
            self.model.auxiliary.scale = 1 / int(batch.counted)
            loss = self.model.loss_sum(batch) / batch.counted
            self.optimizer.zero_grad()
            loss.backward()
            gradients = {name: _array(p) for name, p in parameters.items()}
            clip = math.inf if options.clip is None else options.clip
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
            for group in self.optimizer.param_groups:
                group["lr"] = _rate(options, number, self.job.train.steps)
            self.optimizer.step()
            yield PlainStep(loss.item(), norm.item(), gradients)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """The mean loss of the held-out tokens."""
        batches = [self._batches.held_out(number) for number in range(self.job.evaluation.batches)]
        counted = sum(batch.counted for batch in batches)
        return sum(self.model.loss_sum(batch).item() for batch in batches) / counted

    def state(self, name: str) -> dict[str, torch.Tensor]:
        """A tensor and its moments."""
        parameter = self.model.parameters[name]
        known = self.optimizer.state.get(parameter, {})
        moments = {kind: value for kind, value in known.items() if kind != "step"}
        return {"parameter": parameter.detach(), **moments}


def plain_steps(job_file: Path, folder: Path, until: int | None = None) -> list[PlainStep]:
    """The steps of a job file, all or the first so many; `folder` gets its text's tokens."""
    file = load_job(job_file)
    job = Job(file.model.resolve(), file.train, file.eval)
    text, model = prepare(file.data, folder), PlainModel(job.dimensions, job.train.seed)
    return list(PlainTraining(job, text, model, file.data.seq_len).steps(until or job.train.steps))


def _array(parameter: torch.nn.Parameter) -> np.ndarray:
    """Zeros for what no gradient reaches."""
    return np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy().copy()


def _optimizer(options: OptimizerOptions, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps)


def _rate(options: OptimizerOptions, step: int, steps: int) -> float:
    """Warm-up to the peak, then half a cosine down to a tenth (or what the options say)."""
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return options.lr
    angle = math.pi * (step - options.warmup_steps) / (steps - options.warmup_steps)
    return options.lr * (options.min_lr_ratio + (1 - options.min_lr_ratio) * (1 + math.cos(angle)) / 2)
