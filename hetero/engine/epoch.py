"""One rank under one plan: everything that a plan decides is made here, used for the epoch's steps, and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from backends.backend import Backend
from backends.chip import load_chip
from backends.emulation import Emulated
from balancer.memory.memory import stage_bytes
from balancer.schedule.lowering import actions_of, forward_actions_of
from bridge.port.port import Port
from bridge.words.channel import ChannelSpec
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.expected import ChipPace, workload_of
from hetero.engine.shadow.shadow import Shadow
from hetero.engine.state.ownership import Holding, alike
from hetero.engine.state.replicas import ReplicaCheck
from hetero.engine.state.saving import Saver
from hetero.engine.state.state import State
from hetero.engine.state.update import StepUpdate
from hetero.engine.step.evaluation import Evaluator
from hetero.engine.step.executor import Executor
from hetero.engine.step.meter import Meter
from hetero.engine.step.samples import Text
from hetero.engine.step.stage import RankPlace, Stage
from hetero.engine.step.totals import Totals
from hetero.engine.wiring import EpochGroups, active_ranks, boundary_flows, native_orders
from hetero.engine.world import World
from hetero.layers.group import TensorGroup
from hetero.models.as_hf import as_hf
from hetero.models.registry import architecture
from hetero.transfer.gate import Fallback
from hetero.transfer.native_messages import NativeMessages
from hetero.transfer.point_to_point import PointToPoint
from hetero.transfer.waits import Waits
from hetero.words.notices import CodecFallback, MemoryUsed, RankNotice
from hetero.words.spec import RunSpec
from hetero.words.step import StepReport, StepTotals

STEPS_TO_FILL = 2
"""After these a chip has held all that it will: the second begins with the optimizer's moments."""


class Epoch:
    """An active rank's share of the job from `spec.start` on. Building one is collective within the pool.

    It works on `state`, which is the rank's and outlives it, as `saver` does. `claim_memory` comes before.
    """

    def __init__(
        self,
        spec: RunSpec,
        place: RankPlace,
        world: World,
        groups: EpochGroups,
        tensors: Sequence[Holding],
        port: Port,
        state: State,
        saver: Saver,
    ) -> None:
        self.spec, self.place, self.state, self._saver = spec, place, state, saver
        self._backend, self._me = world.backend, world.rank
        self._events: list[RankNotice] = []
        self.hold = self.held = False
        """Whether this rank was asked to have the epoch end, and whether all have agreed that it has."""
        waits, precisions = Waits(world.backend), spec.plan.precisions()
        self._native = NativeMessages(groups.up, groups.down, self._me.index, waits)
        ends = self._me, spec.epoch, world.backend, port, self._native, waits, spec.bridge
        self._messenger = messenger = PointToPoint(*ends, self._codec_fell_back)
        common = groups.tensor, world.backend, precisions[self._me.pool], state.values, spec.train.tuning
        self.stage = Stage(spec.model, spec.plan, place, *common)
        self._text = Text(spec, place, world.backend.device, self.stage.reads_text or spec.text.packs)
        self._meter, self._pace = Meter(world.backend, waits), ChipPace.of(spec, place, world.backend)
        self._executor, self._evaluator = self._make_executors(groups.tensor)
        self._totals = Totals(messenger, active_ranks(spec.plan), groups.active)
        told = tensors, messenger, groups.shared, self._totals, self._meter, saver, self._pace
        self._update = StepUpdate(spec, self.stage, state, *told)
        self._shadow = Shadow(spec, self._me, self.stage, world.backend, port, self._totals, self._meter)
        self._replicas = [
            ReplicaCheck(found, dict(self.stage.parameters), self._me) for found in alike(tensors, precisions)
        ]

    @property
    def next_step(self) -> int:
        """Steps that are done."""
        return self.state.step

    def run_step(self) -> StepReport:
        """Trains one step and returns its report. What it has updated may still be on its way to other copies: see
        `settle`."""
        step, update = self.next_step, self._update
        if isinstance(self._backend, Emulated):
            self._backend.step(step)
        self._meter.begin(self.spec.traces(step))
        update.begin()
        self._executor.loss_scale = self.stage.auxiliary.scale = update.loss_scale
        self._native.begin(self._orders)
        with self._meter.reading():
            batch = self._text.batch(step)
        with self._shadow.watching(step, batch.micro_batch) as batch_of:
            self._executor.run(batch_of, update.made, update.arrival)
        totals = update.run(*self._spoken(self._executor, batch.counted), self.hold, self._shadow.run)
        totals = replace(totals, shadow=self._shadow.found)
        self._executor.drain()
        self.stage.clear()
        self.held, self.state.step = totals.held, step + 1
        self._compare_replicas()
        if self.next_step == self.spec.start + STEPS_TO_FILL:
            self._tell_memory()
        report = self._report(step, totals)
        if self.spec.evaluates_at(self.next_step):
            loss = self._evaluate()
            if report.totals is not None:
                return replace(report, totals=replace(report.totals, eval_loss=loss))
        return report

    def settle(self) -> None:
        """Until all copies held here are up to date: before anything but the next step looks at them."""
        self._update.arrival.settle()

    def take_events(self) -> list[RankNotice]:
        """What has happened since the last call that the run's journal should know."""
        events = list(self._events)
        self._events.clear()
        return events

    def save(self) -> None:
        """Begins to write this rank's piece of a checkpoint of the steps done so far. An owner's masters are there
        before its copies are, but for those that its host still updates."""
        assert self.spec.checkpoint_folder is not None
        in_host = self._update.in_host
        if in_host:
            self.settle()
        store = CheckpointStore(self.spec.checkpoint_folder)
        layout = HfLayout(as_hf(self.spec.model)) if self.spec.checkpoint_directory else None
        byte_s = 0.0 if in_host else self._pace.host_byte_s
        self._saver.save(store, self.state, byte_s, layout)

    def close(self) -> None:
        """Gives back what the chip holds for the epoch."""
        self._messenger.close()
        self._update.close()
        self._backend.release(str(self.place))

    @property
    def fingerprint(self) -> str | None:
        """Of the text that this rank reads, None if it reads none."""
        return self._text.fingerprint

    def _codec_fell_back(self, channel: ChannelSpec, found: Fallback) -> None:
        link = channel.source.pool, channel.target.pool
        self._events.append(CodecFallback(link, str(channel.target), channel.purpose, channel.name, **vars(found)))

    def _tell_memory(self) -> None:
        """One chip of each stage tells what its driver says by now, where it says anything."""
        used = self._backend.memory()
        if used.held_bytes is not None and self.place.position == 0:
            sizes = used.held_bytes, used.peak_bytes, used.limit_bytes
            self._events.append(MemoryUsed(self.place.pipeline, self.place.stage, *sizes))

    def _evaluate(self) -> float | None:
        """The mean token loss over the held-out batches, equal on all ranks; None where no token of them is counted. No
        part of the step's figures."""
        self.settle()
        spoken = torch.zeros(2, dtype=torch.float64)
        for number in range(self.spec.evaluation.batches):
            self._native.begin(self._forward_orders)
            batch = self._text.held_out_batch(number)
            self._evaluator.evaluate(batch.micro_batch)
            loss, counted = self._spoken(self._evaluator, batch.counted)
            spoken += torch.tensor((float(loss), counted), dtype=torch.float64)
        self._evaluator.drain()
        total, of = self._totals.sum(spoken).tolist()
        return total / of if of else None

    def _spoken(self, executor: Executor, counted: float) -> tuple[torch.Tensor | float, float]:
        """The sum of token losses that this rank speaks for, and the number of the tokens: of the ranks that know a
        pipeline's, one does."""
        if executor.loss is None or self.place.along("tp") > 0:
            return 0.0, 0.0
        return executor.loss, counted

    def _compare_replicas(self) -> None:
        every = self.spec.train.replica_check_every
        if every and (self.next_step % every == 0 or self.next_step == self.spec.steps):
            self.settle()
            for replicas in self._replicas:
                replicas.compare(self.next_step - 1, self._totals)

    def _report(self, step: int, totals: StepTotals) -> StepReport:
        return StepReport(
            **vars(self._meter.spent(step, self.spec.epoch)),
            rank=self._me,
            pipeline=self.place.pipeline,
            stage=self.place.stage,
            tp_rank=self.place.along("tp"),
            totals=totals if self._totals.is_root else None,
            spans=self._meter.spans(),
        )

    def _make_executors(self, group: TensorGroup) -> tuple[Executor, Evaluator]:
        """Both work over the same flows, one after the other."""
        spec, pipeline = self.spec, self.spec.plan.pipelines[self.place.pipeline]
        sizes = architecture(spec.model).boundary
        shape = (pipeline.micro_batch, spec.text.seq_len)
        lists, forward_lists = actions_of(pipeline, spec.plan.schedule), forward_actions_of(pipeline)
        self._orders, self._forward_orders = (
            native_orders(spec.plan, self.place, one) for one in (lists, forward_lists)
        )
        actions, forwards = lists[self.place.stage], forward_lists[self.place.stage]
        flows = boundary_flows(self._messenger, spec.plan, self.place, sizes, shape, group)
        rows = shape[0], shape[1] // group.size if group.sequence_parallel else shape[1]
        common = flows, list(sizes), rows, self.stage.dtype, self._meter, self._pace
        return Executor(self.stage.chunks, actions, *common), Evaluator(self.stage.chunks, forwards, *common)


def claim_memory(spec: RunSpec, place: RankPlace, backend: Backend) -> None:
    """What the plan says that a stage's chip will hold. An emulated chip has only its memory; a real one keeps its own
    account."""
    pool = place.ranks[0].pool
    chip, precision = load_chip(spec.pools[pool].chip), spec.plan.precisions()[pool]
    crossing = spec.bridge.sync_bucket_bytes, spec.bridge.codecs_between
    common = spec.plan, place.pipeline, place.stage, precision, chip, *crossing
    backend.claim(str(place), stage_bytes(workload_of(spec), *common).total)
