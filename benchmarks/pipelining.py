"""torch.distributed.pipelining as a peer, paced as our ranks are where chips are emulated."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from backends.backend import Backend
from backends.emulation import Emulated
from balancer.schedule.action import Kind
from benchmarks.peers import Trainer
from bridge.rank import RankId
from hetero.engine.expected import Expected, expected_s, topology_of, workload_of
from hetero.engine.step.stage import place_of
from hetero.words.spec import RunSpec


class PacedStage(PipelineStage):
    """On an emulated chip, takes as long for a forward or a backward as our own ranks do, by the same stopwatch."""

    _backend: Backend | None = None
    overrun = False

    def pace(self, backend: Backend, forward_s: float, backward_s: float) -> None:
        self._backend, self._forward_s, self._backward_s = backend, forward_s, backward_s

    def forward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        if self._backend is None:
            return super().forward_one_chunk(*args, **kwargs)
        watch = self._backend.start(self._forward_s)
        output = super().forward_one_chunk(*args, **kwargs)
        watch.stop()
        self.overrun |= watch.overrun
        return output

    def backward_one_chunk(self, *args: Any, **kwargs: Any) -> None:
        if self._backend is None:
            return super().backward_one_chunk(*args, **kwargs)
        watch = self._backend.start(self._backward_s)
        super().backward_one_chunk(*args, **kwargs)
        watch.stop()
        self.overrun |= watch.overrun


def _expected(spec: RunSpec, stage: int) -> Expected:
    place = place_of(spec.plan, RankId(spec.plan.pipelines[0].stages[stage].pool, 0))
    assert place is not None
    topology = topology_of(spec.pools, spec.plan.precisions())
    return expected_s(topology, workload_of(spec), spec.plan, place, spec.time_scale)


class Pipelining(Trainer):
    """Schedule1F1B over gloo, one process per stage; the global gradient norm by one all-reduce."""

    def __init__(self, spec: RunSpec, rank: int, units: tuple[int, int], backend: Backend) -> None:
        super().__init__(spec, rank, units, backend)
        self.stage = PacedStage(self.model, rank, len(spec.plan.pipelines[0].stages), backend.device)
        self.update_s: float | None = None
        if isinstance(backend, Emulated):
            expected = _expected(spec, rank)
            self.update_s = expected[Kind.STEP, -1]
            self.stage.pace(backend, expected[Kind.F, rank], expected[Kind.B, rank])
        micro_batches = spec.train.global_batch // spec.train.micro_batch
        self.schedule = Schedule1F1B(self.stage, micro_batches, lambda loss, _: loss / self.tokens, scale_grads=False)

    def step(self, number: int) -> float:
        batch = self.read(number * self.spec.train.global_batch, self.spec.train.global_batch)
        losses: list[torch.Tensor] = []
        if self.model.first:
            self.schedule.step(batch.tokens_BT, return_outputs=False)
        else:
            self.schedule.step(labels=batch.labels_BT, target=batch.labels_BT, losses=losses, return_outputs=False)
        parameters = list(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        square = norm.square()
        dist.all_reduce(square)
        watch = self.backend.start(self.update_s)
        torch.nn.utils.clip_grads_with_norm_(parameters, self.spec.train.optimizer.clip or torch.inf, square.sqrt())
        self.optimizer.step()
        watch.stop()
        self.optimizer.zero_grad()
        self.overrun, self.stage.overrun = self.stage.overrun, False
        return float(torch.stack(losses).detach().sum()) if losses else 0.0
