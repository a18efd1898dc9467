"""The update that ends a step: gradients to their owners, numbers that all ranks agree on, the optimizer, and the
parameters on their way back (law 9).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from backends.communicator import Communicator
from backends.cpu import CpuBackend
from balancer.plan.plan import Plan, stage_ranks
from balancer.schedule.action import Kind
from bridge.rank import RankId
from hetero.checkpoint.pieces import write_piece
from hetero.engine.expected import ChipPace
from hetero.engine.state.host_update import HostPace, HostReturn, HostUpdate
from hetero.engine.state.optimizer import Optimizer, gradient_scale, learning_rate
from hetero.engine.state.ownership import Holding
from hetero.engine.state.parameter_return import ParameterReturn, has_copies
from hetero.engine.state.saving import Saver
from hetero.engine.state.state import State, Tensors
from hetero.engine.state.sync import GradientSync
from hetero.engine.step.meter import Meter
from hetero.engine.step.stage import DTYPES, Stage
from hetero.engine.step.totals import Totals
from hetero.transfer.point_to_point import PointToPoint
from hetero.words.spec import RunSpec
from hetero.words.step import StepTotals


class _Agreed(NamedTuple):
    """Sums over all ranks: of token losses, of the tokens that these are of, of the squares of the gradients' sums, of
    ranks that found one which is not finite, and of those that were asked to hold. `loss_scale` is in the gradients."""

    loss_scale: float
    loss: float
    counted: float
    square: float
    bad: float
    hold: float

    @property
    def mean_loss(self) -> float:
        return self.loss / self.counted if self.counted else math.nan

    @property
    def divisor(self) -> float:
        """What makes the gradients' sums those of the mean loss."""
        return max(self.counted, 1.0) * self.loss_scale

    @property
    def norm(self) -> float:
        """Of the gradients of the mean loss."""
        return math.sqrt(self.square) / self.divisor if math.isfinite(self.square) else self.square

    @property
    def skipped(self) -> bool:
        """Whether nobody updates."""
        return self.bad > 0 or not math.isfinite(self.norm) or not self.counted


class StepUpdate:
    """Of one rank under one plan, on its `state`, which an owner's part of it changes.

    In a step: `begin`, `made` as backwards go, and `run`. What others own, and what a host updates, then comes by
    `arrival` while the next step begins, and `arrival.settle` waits for all of it.
    """

    def __init__(
        self,
        spec: RunSpec,
        stage: Stage,
        state: State,
        tensors: Sequence[Holding],
        messenger: PointToPoint,
        shared: Communicator | None,
        totals: Totals,
        meter: Meter,
        saver: Saver,
        pace: ChipPace,
    ) -> None:
        """`shared` are the chips of this pool that this one shares state with; `saver` may still be copying the state,
        which is not changed until then."""
        self._spec, self._stage, self._state = spec, stage, state
        self._me, self._backend = messenger.me, messenger.backend
        self._totals, self._meter, self._saver, self._pace = totals, meter, saver, pace
        self._tokens = spec.train.global_batch * spec.text.seq_len
        precisions, hosts = spec.plan.precisions(), _in_host(spec.plan)
        told = messenger, shared, [holding for holding in tensors if holding.trains], spec.bridge.sync_bucket_bytes
        dtypes = {pool: DTYPES[precision] for pool, precision in precisions.items()}
        self._gradients = GradientSync(*told, stage.gradients)
        self._return = ParameterReturn(*told, dict(stage.parameters), dtypes, hosts)
        self.arrival: HostReturn | ParameterReturn = self._return
        self.in_host = self._me in hosts
        updates = CpuBackend if self.in_host else self._backend
        self._optimizer = _optimizer(spec, state, tensors, updates.capabilities.fused_adamw)
        self._alone: set[str] = set()
        self._host = self._move_to_host(tensors) if self.in_host else None
        self._is_float16 = precisions[self._me.pool] == "float16"
        state.loss_scale = state.loss_scale.where(precisions.values())

    @property
    def loss_scale(self) -> float:
        """What the losses of a step's tokens are multiplied by for their gradients."""
        return self._state.loss_scale.per_token(self._tokens)

    def begin(self) -> None:
        """Of a step: whatever overflowed before is none of its business."""
        self._gradients.begin()
        self._overflowed()

    def made(self, chunk: int, names: Iterable[str]) -> None:
        """The gradients of these tensors that come from a chunk are complete."""
        with self._meter.syncing(chunk):
            self._gradients.made(chunk, names)
            if self._host is not None:
                self._host.take(self._stage.gradients(name for name in names if name in self._alone))

    def run(
        self, loss: torch.Tensor | float, counted: float, hold: bool, before_change: Callable[[float], None]
    ) -> StepTotals:
        """Blocks until all gradients are in. `loss` is the sum of the token losses that this rank speaks for, which is
        not read before, `counted` of how many tokens; `hold` asks all ranks to have the epoch end here, which the
        totals answer. Unless the step is skipped, all ranks come to `before_change` at once, when no parameter has
        changed: it is told the loss scale."""
        step, options = self._state.step, self._spec.train.optimizer
        sums = self._sums()
        agreed = self._agree(sums, loss, counted, hold)
        lr = learning_rate(options, step, self._spec.train.steps)
        self._capture(step, sums, agreed.divisor)
        if not agreed.skipped:
            before_change(agreed.loss_scale)
        scale = None if agreed.skipped else gradient_scale(agreed.norm, agreed.divisor, options.clip)
        self._change(sums, scale, lr)
        self._gradients.drain()
        was, known = self._state.loss_scale, int(agreed.counted)
        self._state.loss_scale = was.after(agreed.skipped, known)
        return StepTotals(
            loss=agreed.mean_loss,
            tokens=self._tokens,
            grad_norm=agreed.norm,
            lr=lr,
            loss_scale=was.value,
            skipped=agreed.skipped,
            consumed_tokens=(step + 1) * self._tokens,
            counted_tokens=known,
            held=agreed.hold > 0,
        )

    def close(self) -> None:
        if self._host is not None:
            self._host.close()

    def _sums(self) -> Tensors:
        """The gradients of what is owned here, over all copies; to the host, if it is to update."""
        with self._meter.mark("wait sync"):
            sums = self._gradients.sums()
        if self._host is not None:
            self._host.take(sums)
        return sums

    def _agree(self, sums: Tensors, loss: torch.Tensor | float, counted: float, hold: bool) -> _Agreed:
        with self._meter.mark("wait totals"):
            square = _square(sums)
            bad = not math.isfinite(square) or self._overflowed()
            mine = float(loss), counted, square, float(bad), float(hold)
            summed = self._totals.sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        return _Agreed(self.loss_scale, *summed)

    def _overflowed(self) -> bool:
        """Since this was asked last, on a chip that does not show it."""
        return self._is_float16 and self._backend.overflowed()

    def _change(self, sums: Tensors, scale: float | None, lr: float) -> None:
        """What is owned here, by `sums` times `scale`; where that is None, its copies get it as it is."""
        self._return.begin()
        if self._host is not None:
            with self._meter.mark("wait host"):
                self._host.leave()
        self._let_change()
        if scale is None:
            for names in self._return.slices:
                self._give(names)
        elif self._host is not None:
            self._host.start(scale, lr)
        else:
            self._step(sums, scale, lr)

    def _let_change(self) -> None:
        """Waits until a save has copied the state."""
        if self._saver.is_copying:
            with self._meter.mark("wait save"), self._meter.waits.updating():
                self._saver.copied()

    def _step(self, sums: Tensors, scale: float, lr: float) -> None:
        """Each slice leaves for its copies while the next one is updated. An emulated chip updates all first, and then
        lets each leave at its time, the last one at the end."""
        expected_s, paced = self._pace.update_s, list[Sequence[str]]()
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

    def _give(self, names: Sequence[str]) -> None:
        self._return.give({name: self._state.masters[name] for name in names})

    def _move_to_host(self, tensors: Sequence[Holding]) -> HostUpdate:
        """Masters and moments, which the host updates from now on."""
        state, waits = self._state, self._meter.waits
        state.to_host(lambda tensor: self._backend.beside(tensor, tensor.dtype))
        self._alone = {one.name for one in tensors if one.name in state.masters and _is_alone(one)}
        units = {holding.name: holding.unit for holding in tensors}
        owned = sum(master.numel() for master in state.masters.values())
        pace = HostPace(self._pace.host_byte_s, (self._pace.update_s or 0.0) / max(owned, 1))
        host = HostUpdate(self._optimizer, state, self._backend, self._return.slices, units, pace, waits)
        self.arrival = HostReturn(host, self._return, state)
        return host

    def _capture(self, step: int, sums: Tensors, divisor: float) -> None:
        """Writes the mean gradients of what is owned here, if the step is one of those."""
        capture = self._spec.capture
        if capture is None or step not in capture.steps or not sums:
            return
        path = Path(capture.folder) / f"step-{step:08d}" / f"{self._me.pool}-{self._me.index}.safetensors"
        mean = {name: {"gradient": gradient / divisor} for name, gradient in sums.items()}
        piece = write_piece(path, self._me, mean, self._state.places)
        path.with_suffix(".json").write_text(piece.model_dump_json())


def _square(sums: Tensors) -> float:
    """The sum of the squares of all elements."""
    if not sums:
        return 0.0
    norms = torch._foreach_norm(list(sums.values()))
    return float(torch.stack(norms).cpu().double().square().sum())


def _in_host(plan: Plan) -> set[RankId]:
    """The ranks that update in host memory."""
    return {rank for (p, s), stage in plan.stages() if stage.optimizer == "host" for rank in stage_ranks(plan, p, s)}


def _is_alone(holding: Holding) -> bool:
    """Whether one chunk here makes all of its gradient."""
    return not has_copies(holding) and all(len(holder.chunks) == 1 for holder in holding.holders)


def _optimizer(spec: RunSpec, state: State, tensors: Sequence[Holding], fused: bool) -> Optimizer:
    matrices = {holding.name for holding in tensors if len(holding.owners.layout.shape) > 1}
    return Optimizer(spec.train.optimizer, state, matrices, fused)
