"""One rank under one plan: everything that a plan decides is made here, used for the epoch's steps, and dropped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from backends.backend import Backend
from backends.chip import load_chip
from backends.cpu import CpuBackend
from backends.emulation import Emulated
from balancer.cost.workload import Workload
from balancer.memory.memory import stage_bytes
from balancer.plan.plan import Plan, stage_ranks
from balancer.schedule.action import Kind
from balancer.schedule.lowering import actions_of, forward_actions_of
from bridge.port.port import Port
from bridge.rank import RankId
from bridge.words.channel import ChannelSpec
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.expected import Laps, expected_s, laps, topology_of
from hetero.engine.state.host_update import HostPace, HostReturn, HostUpdate
from hetero.engine.state.optimizer import Optimizer, gradient_scale, learning_rate
from hetero.engine.state.ownership import Holding, alike
from hetero.engine.state.parameter_return import ParameterReturn, has_copies
from hetero.engine.state.replicas import ReplicaCheck
from hetero.engine.state.saving import Saver
from hetero.engine.state.state import State
from hetero.engine.state.sync import GradientSync
from hetero.engine.step.evaluation import Evaluator
from hetero.engine.step.executor import Executor
from hetero.engine.step.meter import Meter
from hetero.engine.step.samples import Text
from hetero.engine.step.stage import DTYPES, RankPlace, Stage
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
        self._waits = Waits(world.backend)
        self._events: list[RankNotice] = []
        self.hold = self.held = False
        """Whether this rank was asked to have the epoch end, and whether all have agreed that it has."""
        self._native = NativeMessages(groups.up, groups.down, self._me.index, self._waits)
        messenger = PointToPoint(
            self._me, spec.epoch, world.backend, port, self._native, self._waits, spec.bridge, self._codec_fell_back
        )
        self._messenger = messenger
        common = groups.tensor, world.backend, self._precision, state.values, spec.train.tuning
        self.stage = Stage(spec.model, spec.plan, place, *common)
        self._text = Text(spec, place, world.backend.device, self.stage.reads_text or spec.text.packs)
        self._optimizer = _optimizer(spec, state, tensors, world.backend.capabilities.fused_adamw)
        self._meter = Meter(world.backend, self._waits)
        self._expected = _expected(spec, place, world.backend)
        self._executor, self._evaluator = self._make_executors(messenger, groups.tensor)
        told = messenger, groups.shared, [h for h in tensors if h.trains], spec.bridge.sync_bucket_bytes
        self._gradients = GradientSync(*told, self.stage.gradients)
        precisions = spec.plan.precisions()
        dtypes = {pool: DTYPES[precision] for pool, precision in precisions.items()}
        self._return = ParameterReturn(*told, dict(self.stage.parameters), dtypes, _in_host(spec.plan))
        self._host: HostUpdate | None = None
        self._arrival: HostReturn | ParameterReturn = self._return
        self._alone: set[str] = set()
        if self._me in _in_host(spec.plan):
            self._move_to_host(tensors)
        self._totals = Totals(messenger, active_ranks(spec.plan), groups.active)
        self._replicas = [
            ReplicaCheck(found, dict(self.stage.parameters), self._me) for found in alike(tensors, precisions)
        ]
        state.loss_scale = state.loss_scale.where(precisions.values())

    @property
    def next_step(self) -> int:
        """Steps that are done."""
        return self.state.step

    def run_step(self) -> StepReport:
        """Trains one step and returns its report. What it has updated may still be on its way to other copies: see
        `settle`."""
        step = self.next_step
        if isinstance(self._backend, Emulated):
            self._backend.step(step)
        self._meter.begin(self.spec.traces(step))
        self._gradients.begin()
        self._executor.loss_scale = loss_scale = self.state.loss_scale.per_token(self._all_tokens)
        self.stage.auxiliary.scale = loss_scale
        self._overflowed()  # before this step, which is none of its business
        self._native.begin(self._orders)
        with self._meter.reading():
            batch = self._text.batch(step)
        self._executor.run(batch.micro_batch, self._sync, self._arrival)
        totals = self._update(step, loss_scale, batch.counted)
        self._executor.drain()
        self.stage.clear()
        self.state.step = step + 1
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
        self._arrival.settle()

    def take_events(self) -> list[RankNotice]:
        """What has happened since the last call that the run's journal should know."""
        events = list(self._events)
        self._events.clear()
        return events

    def save(self) -> None:
        """Begins to write this rank's piece of a checkpoint of the steps done so far. An owner's masters are there
        before its copies are, but for those that its host still updates."""
        assert self.spec.checkpoint_folder is not None
        if self._host is not None:
            self.settle()
        store = CheckpointStore(self.spec.checkpoint_folder)
        layout = HfLayout(as_hf(self.spec.model)) if self.spec.checkpoint_directory else None
        self._saver.save(store, self.state, self._copied_byte_s, layout)

    def close(self) -> None:
        """Gives back what the chip holds for the epoch."""
        self._messenger.close()
        if self._host is not None:
            self._host.close()
        self._backend.release(str(self.place))

    @property
    def fingerprint(self) -> str | None:
        """Of the text that this rank reads, None if it reads none."""
        return self._text.fingerprint

    @property
    def _copied_byte_s(self) -> float:
        """Of an emulated chip whose state is not in host memory already."""
        return 0.0 if self._host is not None else _host_byte_s(self.spec, self.place, self._backend)

    @property
    def _precision(self) -> str:
        return self.spec.plan.precisions()[self._me.pool]

    def _codec_fell_back(self, channel: ChannelSpec, found: Fallback) -> None:
        link = channel.source.pool, channel.target.pool
        self._events.append(CodecFallback(link, str(channel.target), channel.purpose, channel.name, **vars(found)))

    def _tell_memory(self) -> None:
        """One chip of each stage tells what its driver says by now, where it says anything."""
        used = self._backend.memory()
        if used.held_bytes is not None and self.place.position == 0:
            sizes = used.held_bytes, used.peak_bytes, used.limit_bytes
            self._events.append(MemoryUsed(self.place.pipeline, self.place.stage, *sizes))

    def _sync(self, chunk: int, names: Iterable[str]) -> None:
        with self._meter.syncing(chunk):
            self._gradients.made(chunk, names)
            if self._host is not None:
                self._host.take(self.stage.gradients(name for name in names if name in self._alone))

    def _update(self, step: int, loss_scale: float, counted: float) -> StepTotals:
        """`loss_scale` is what the gradients were multiplied by, `counted` how many tokens the loss is of."""
        with self._meter.mark("wait sync"):
            sums = self._gradients.sums()
        if self._host is not None:
            self._host.take(sums)
        with self._meter.mark("wait totals"):
            loss, counted, square, bad, hold = self._totals.sum(self._numbers(sums, counted)).tolist()
        self.held = hold > 0
        divisor = max(counted, 1.0) * loss_scale
        norm = math.sqrt(square) / divisor if math.isfinite(square) else square
        skipped = bad > 0 or not math.isfinite(norm) or not counted
        lr = learning_rate(self.spec.train.optimizer, step, self.spec.train.steps)
        self._capture(step, sums, divisor)
        self._return.begin()
        scale = gradient_scale(norm, divisor, self.spec.train.optimizer.clip)
        if self._host is not None:
            with self._meter.mark("wait host"):
                self._host.leave()
        self._let_change()
        if skipped:
            for names in self._return.slices:
                self._give(names)
        elif self._host is not None:
            self._host.start(scale, lr)
        else:
            self._step(sums, scale, lr)
        self._gradients.drain()
        was = self.state.loss_scale.value
        self.state.loss_scale = self.state.loss_scale.after(skipped, int(counted))
        mean, tokens = loss / counted if counted else math.nan, self._all_tokens
        done = (step + 1) * tokens
        return StepTotals(mean, tokens, norm, lr, was, skipped, done, int(counted), held=self.held)

    def _let_change(self) -> None:
        """Waits until a save has copied the state."""
        if self._saver.is_copying:
            with self._meter.mark("wait save"), self._waits.updating():
                self._saver.copied()

    def _step(self, sums: dict[str, torch.Tensor], scale: float, lr: float) -> None:
        """Each slice leaves for its copies while the next one is updated. An emulated chip updates all first, and then
        lets each leave at its time, the last one at the end."""
        expected_s, paced = self._expected.get((Kind.STEP, -1)), list[Sequence[str]]()
        leave = self._give if expected_s is None else paced.append
        with self._meter.action(Kind.STEP, "STEP", expected_s) as watch:
            self._optimizer.step(sums, scale, lr, self._return.slices, leave)
            owned = sum(gradient.numel() for gradient in sums.values())
            updated = 0
            for names in paced[:-1]:
                updated += sum(sums[name].numel() for name in names)
                watch.lap(updated / owned)
                self._give(names)
        for names in paced[-1:]:
            self._give(names)

    def _move_to_host(self, tensors: Sequence[Holding]) -> None:
        """Masters and moments, which the host updates from now on."""
        state, spec = self.state, self.spec
        state.to_host(lambda tensor: self._backend.beside(tensor, tensor.dtype))
        self._optimizer = _optimizer(spec, state, tensors, CpuBackend.capabilities.fused_adamw)
        units = {holding.name: holding.unit for holding in tensors}
        self._alone = {h.name for h in tensors if h.name in state.masters and not has_copies(h) and _used_once(h)}
        pace = _host_pace(spec, self.place, self._backend, sum(master.numel() for master in state.masters.values()))
        self._host = HostUpdate(self._optimizer, state, self._backend, self._return.slices, units, pace, self._waits)
        self._arrival = HostReturn(self._host, self._return, state)

    def _give(self, names: Sequence[str]) -> None:
        self._return.give({name: self.state.masters[name] for name in names})

    def _numbers(self, sums: dict[str, torch.Tensor], counted: float) -> torch.Tensor:
        """(sum of token losses, tokens that it is of, sum of squares of the gradient sums, found-inf, asked to hold) of
        this rank."""
        square = 0.0
        if sums:
            norms = torch._foreach_norm(list(sums.values()))
            square = float(torch.stack(norms).cpu().double().square().sum())
        bad = not math.isfinite(square) or self._overflowed()
        told = *self._spoken(self._executor, counted), square, float(bad), float(self.hold)
        return torch.tensor(told, dtype=torch.float64)

    def _overflowed(self) -> bool:
        """Since this was asked last, on a chip that does not show it."""
        return self._precision == "float16" and self._backend.overflowed()

    def _evaluate(self) -> float | None:
        """The mean token loss over the held-out batches, equal on all ranks; None where no token of them is counted. No
        part of the step's figures."""
        self.settle()
        spoken = torch.zeros(2, dtype=torch.float64)
        for number in range(self.spec.evaluation.batches):
            self._native.begin(self._forward_orders)
            batch = self._text.held_out_batch(number)
            self._evaluator.evaluate(batch.micro_batch)
            spoken += torch.tensor(self._spoken(self._evaluator, batch.counted), dtype=torch.float64)
        self._evaluator.drain()
        loss, counted = self._totals.sum(spoken).tolist()
        return loss / counted if counted else None

    def _spoken(self, executor: Executor, counted: float) -> tuple[float, float]:
        """The sum of token losses that this rank speaks for, and the number of the tokens: of the ranks that know a
        pipeline's, one does."""
        if executor.loss is None or self.place.along("tp") > 0:
            return 0.0, 0.0
        return float(executor.loss), counted

    @property
    def _all_tokens(self) -> int:
        """Of a global batch, whether they are counted or not."""
        return self.spec.train.global_batch * self.spec.text.seq_len

    def _capture(self, step: int, sums: dict[str, torch.Tensor], divisor: float) -> None:
        capture = self.spec.capture
        if capture is None or step not in capture.steps or not sums:
            return
        path = Path(capture.folder) / f"step-{step:08d}" / f"{self._me.pool}-{self._me.index}.safetensors"
        mean = {name: {"gradient": gradient / divisor} for name, gradient in sums.items()}
        piece = write_piece(path, self._me, mean, self.state.places)
        path.with_suffix(".json").write_text(piece.model_dump_json())

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

    def _make_executors(self, messenger: PointToPoint, group: TensorGroup) -> tuple[Executor, Evaluator]:
        """Both work over the same flows, one after the other."""
        spec, pipeline = self.spec, self.spec.plan.pipelines[self.place.pipeline]
        sizes = architecture(spec.model).boundary
        shape = (pipeline.micro_batch, spec.text.seq_len)
        lists, forward_lists = actions_of(pipeline, spec.plan.schedule), forward_actions_of(pipeline)
        self._orders, self._forward_orders = (
            native_orders(spec.plan, self.place, one) for one in (lists, forward_lists)
        )
        actions, forwards = lists[self.place.stage], forward_lists[self.place.stage]
        flows = boundary_flows(messenger, spec.plan, self.place, sizes, shape, group)
        told = self._meter, self._expected, _laps(spec, self.place, self._backend)
        rows = shape[0], shape[1] // group.size if group.sequence_parallel else shape[1]
        common = flows, list(sizes), rows, self.stage.dtype, *told
        return Executor(self.stage.chunks, actions, *common), Evaluator(self.stage.chunks, forwards, *common)


def claim_memory(spec: RunSpec, place: RankPlace, backend: Backend) -> None:
    """What the plan says that a stage's chip will hold. An emulated chip has only its memory; a real one keeps its own
    account."""
    pool = place.ranks[0].pool
    chip, precision = load_chip(spec.pools[pool].chip), spec.plan.precisions()[pool]
    crossing = spec.bridge.sync_bucket_bytes, spec.bridge.codecs_between
    common = spec.plan, place.pipeline, place.stage, precision, chip, *crossing
    backend.claim(str(place), stage_bytes(workload_of(spec), *common).total)


def _in_host(plan: Plan) -> set[RankId]:
    """The ranks that update in host memory."""
    return {rank for (p, s), stage in plan.stages() if stage.optimizer == "host" for rank in stage_ranks(plan, p, s)}


def _used_once(holding: Holding) -> bool:
    return all(len(holder.chunks) == 1 for holder in holding.holders)


def _host_pace(spec: RunSpec, place: RankPlace, backend: Backend, owned: int) -> HostPace:
    if not isinstance(backend, Emulated) or not owned:
        return HostPace()
    update_s = _expected(spec, place, backend)[Kind.STEP, -1]
    return HostPace(_host_byte_s(spec, place, backend), update_s / owned)


def _host_byte_s(spec: RunSpec, place: RankPlace, backend: Backend) -> float:
    """What an emulated chip takes to give its host a byte."""
    if not isinstance(backend, Emulated):
        return 0.0
    pool = spec.pools[place.ranks[0].pool].planned(spec.plan.precisions()[place.ranks[0].pool])
    return spec.time_scale / pool.chip.host_bytes_per_s


def _optimizer(spec: RunSpec, state: State, tensors: Sequence[Holding], fused: bool) -> Optimizer:
    matrices = {holding.name for holding in tensors if len(holding.owners.layout.shape) > 1}
    return Optimizer(spec.train.optimizer, state, matrices, fused)


def _expected(spec: RunSpec, place: RankPlace, backend: Backend) -> dict[tuple[Kind, int], float]:
    if not isinstance(backend, Emulated):
        return {}
    topology = topology_of(spec.pools, spec.plan.precisions())
    return expected_s(topology, workload_of(spec), spec.plan, place, spec.time_scale)


def _laps(spec: RunSpec, place: RankPlace, backend: Backend) -> Laps:
    if not isinstance(backend, Emulated):
        return {}
    return laps(topology_of(spec.pools, spec.plan.precisions()), workload_of(spec), spec.plan, place)


def workload_of(spec: RunSpec) -> Workload:
    """What the run's model costs, unit by unit."""
    model, train = architecture(spec.model, spec.train.tuning), spec.train
    work = model.workload(spec.text.seq_len, train.global_batch, train.precision)
    return replace(work, update=train.optimizer.update, packed=spec.text.packs)
