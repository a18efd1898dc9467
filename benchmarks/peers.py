"""What our engine is measured against: the same units under a plain loop, and (pipelining.py) torch's own pipelining.

Both are written as somebody would who knows torch: one thread per process, gradients accumulated over micro-batches, a
fused AdamW, clipping by torch's own functions. They are told what ranks are told, a `RunSpec`, and read the same text.
"""

from __future__ import annotations

import multiprocessing as mp
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

import torch
import torch.distributed as dist
from torch import nn

from backends.backend import Backend
from hetero.data.batches import micro_batch
from hetero.data.order import SampleOrder
from hetero.data.stream import TokenStream
from hetero.engine.rank import open_backend
from hetero.engine.step.stage import DTYPES
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.unit_module import build_unit
from hetero.words.spec import RunSpec

SETTINGS = """\
Peers: our modules, one thread per process, torch.optim.AdamW(fused=True), clipping at 1.0, gradients set to None.
  plain: one process, loss.backward() for each micro-batch, clip_grad_norm_
  pipelining: PipelineStage and Schedule1F1B(scale_grads=False) of torch.distributed.pipelining, return_outputs=False,
    gloo over the loopback, one process per stage, the loss inside the last stage, one all-reduce for the norm"""


@dataclass(frozen=True)
class Turn:
    """One step: from the first process that began to the last one that ended."""

    start: float
    end: float
    loss: float
    overrun: bool = False

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Units(nn.Module):
    """Consecutive units; the first stage takes tokens, others x_BTD; the last one takes labels and gives the loss."""

    def __init__(self, spec: RunSpec, backend: Backend, units: tuple[int, int]) -> None:
        super().__init__()
        place = TensorGroup(), backend.operators, torch.float32, backend.device, spec.train.seed
        builder = Builder(*place, weight_gradients=WeightGradients(backend.operators.add_product))
        self.units = nn.ModuleList(build_unit(spec.model, unit, builder) for unit in range(*units))
        self.first, self.last = units[0] == 0, units[1] == len(architecture(spec.model).units)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        boundary = {} if self.first else {"x_BTD": x}
        batch = Batch(x, x if labels is None else labels)
        for unit in self.units:
            boundary = unit(boundary, batch)
        return boundary["loss" if self.last else "x_BTD"]


class Trainer(ABC):
    """One process of a peer. `step(n)` trains step n and returns its mean loss, 0 where there is none."""

    def __init__(self, spec: RunSpec, rank: int, units: tuple[int, int], backend: Backend) -> None:
        self.spec, self.rank, self.backend = spec, rank, backend
        self.model = self.build(units)
        options = spec.train.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=options.lr,
            betas=options.betas,
            eps=options.eps,
            weight_decay=0.0,
            fused=backend.capabilities.fused_adamw,
        )
        self.stream = TokenStream(spec.text.path, spec.text.seq_len, spec.text.vocab)
        self.order = SampleOrder(spec.train.seed, len(self.stream))
        self.tokens = spec.train.global_batch * spec.text.seq_len
        self.overrun = False

    def build(self, units: tuple[int, int]) -> nn.Module:
        """What is trained, in float32: tokens and labels in, the sum of the token losses out."""
        return Units(self.spec, self.backend, units)

    @abstractmethod
    def step(self, number: int) -> float: ...

    def read(self, first: int, count: int) -> Batch:
        return micro_batch(self.stream, self.order, first, count).to(self.backend.device)


class PlainLoop(Trainer):
    """Micro-batches one after another in one process, under torch's autocast where the job is not float32."""

    def step(self, number: int) -> float:
        total = torch.zeros((), device=self.backend.device)
        size, precision = self.spec.train.micro_batch, self.spec.train.precision
        first = number * self.spec.train.global_batch
        for start in range(first, first + self.spec.train.global_batch, size):
            batch = self.read(start, size)
            with torch.autocast(self.backend.device_type, DTYPES[precision], enabled=precision != "float32"):
                loss = self.model(batch.tokens_BT, batch.labels_BT) / self.tokens
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.train.optimizer.clip or torch.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(total)


class Peer:
    """The standing processes of one peer, which take a step when they are told to."""

    def __init__(self, kind: type[Trainer], spec: RunSpec) -> None:
        context = mp.get_context("spawn")
        stages = spec.plan.pipelines[0].stages
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._store, self._pipes, self._processes = store, list[Connection](), []
        for rank in range(len(stages)):
            here, there = context.Pipe()
            arguments = (kind, spec.model_dump_json(), rank, store.port, there)
            process = context.Process(target=_live, args=arguments, daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def step(self, number: int) -> Turn:
        """All processes get the go one after another, as our ranks get their lease."""
        for pipe in self._pipes:
            pipe.send(number)
        turns: list[Turn] = [pipe.recv() for pipe in self._pipes]
        return Turn(
            min(turn.start for turn in turns),
            max(turn.end for turn in turns),
            sum(turn.loss for turn in turns),
            any(turn.overrun for turn in turns),
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()


def _live(kind: type[Trainer], spec_json: str, rank: int, port: int, pipe: Connection) -> None:
    """Until the other end of the pipe is closed."""
    torch.set_num_threads(1)
    spec = RunSpec.model_validate_json(spec_json)
    stages = spec.plan.pipelines[0].stages
    if len(stages) > 1:
        store = dist.TCPStore("127.0.0.1", port, is_master=False)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=len(stages))
    trainer = kind(spec, rank, stages[rank].units[0], open_backend(spec.pools[stages[rank].pool], 0))
    pipe.send("ready")
    try:
        while True:
            number = pipe.recv()
            start = time.time()
            loss = trainer.step(number)
            pipe.send(Turn(start, time.time(), loss, trainer.overrun))
    except EOFError:
        return
