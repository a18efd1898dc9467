"""The update: clipped, averaged gradients into the owner's float32 state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from hetero.engine.options import OptimizerOptions


def learning_rate(options: OptimizerOptions, step: int, steps: int) -> float:
    """The rate of step `step` (0-based) of `steps`: a linear warm-up, then constant or a half cosine."""
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return options.lr
    done = (step - options.warmup_steps) / max(1, steps - options.warmup_steps)
    floor = options.lr * options.min_lr_ratio
    return floor + (options.lr - floor) * 0.5 * (1 + math.cos(math.pi * done))


def gradient_scale(norm: float, divisor: float, clip: float | None) -> float:
    """What summed gradients are multiplied by: their mean, shortened to `clip`. `divisor` makes sums a mean, of which
    `norm` is."""
    shorten = 1.0 if clip is None or norm <= clip else clip / (norm + 1e-6)
    return shorten / divisor


class Optimizer:
    """Float32 masters and moments of the shards that this rank owns; other ranks hold none of them.

    `parameters` are the rank's working shards. In float32 a working shard is its own master. The arithmetic is torch's,
    by its functional form: torch's optimizer classes load a compiler at first use, seconds in every rank. `fused` says
    whether the device has torch's fused AdamW, which reads and writes memory once where the plain one does ten times.
    """

    def __init__(
        self, options: OptimizerOptions, parameters: dict[str, torch.Tensor], matrices: set[str], fused: bool = False
    ) -> None:
        self._options = options
        self.masters = {name: parameter.detach().to(torch.float32) for name, parameter in parameters.items()}
        self._groups = [
            _Group([name for name in self.masters if name in matrices], options.weight_decay, fused),
            _Group([name for name in self.masters if name not in matrices], 0.0, fused),
        ]

    def step(self, gradients: dict[str, torch.Tensor], scale: float, lr: float) -> None:
        """Updates the masters. `gradients` are sums; they are scaled in place."""
        if self.masters:
            torch._foreach_mul_([gradients[name] for name in self.masters], scale)
        for group in self._groups:
            if group.names:
                masters = [self.masters[name] for name in group.names]
                group.update(self._options, masters, [gradients[name] for name in group.names], lr)

    def shards(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The masters in the working precision, to be sent to every copy; the masters themselves in float32."""
        return {name: master.to(dtype) for name, master in self.masters.items()}

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Per tensor: its master ("parameter") and its moments, by torch's own names."""
        moments = {name: kinds for group in self._groups for name, kinds in group.moments().items()}
        return {name: {"parameter": master, **moments[name]} for name, master in self.masters.items()}

    def restore(self, name: str, values: dict[str, torch.Tensor], updates: int) -> None:
        """Puts back a tensor's `state`, as it was after `updates` updates."""
        master = self.masters[name]
        master.copy_(values["parameter"])
        group = next(group for group in self._groups if name in group.names)
        kinds = values.keys() - {"parameter"}
        # Fused updates trust moments to lie in memory as their masters do; what a file gives may be a view of more.
        moments = {kind: torch.empty_like(master).copy_(values[kind]) for kind in sorted(kinds)}
        group.restore(name, moments, updates)


@dataclass
class _Group:
    """Tensors of one weight decay, with their moments once there are any."""

    names: list[str]
    weight_decay: float
    fused: bool
    updates: int = 0
    _moments: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def update(
        self, options: OptimizerOptions, masters: list[torch.Tensor], gradients: list[torch.Tensor], lr: float
    ) -> None:
        rule = self._adamw if options.name == "adamw" else self._sgd
        rule(options, masters, gradients, lr)
        self.updates += 1

    def moments(self) -> dict[str, dict[str, torch.Tensor]]:
        return {name: self._moments.get(name, {}) for name in self.names}

    def restore(self, name: str, moments: dict[str, torch.Tensor], updates: int) -> None:
        self.updates = updates
        if moments:
            self._moments[name] = moments

    def _adamw(
        self, options: OptimizerOptions, masters: list[torch.Tensor], gradients: list[torch.Tensor], lr: float
    ) -> None:
        for name, master in zip(self.names, masters, strict=True):
            if name not in self._moments:
                self._moments[name] = {kind: torch.zeros_like(master) for kind in ("exp_avg", "exp_avg_sq")}
        first, second = ([self._moments[name][kind] for name in self.names] for kind in ("exp_avg", "exp_avg_sq"))
        device = masters[0].device if self.fused else "cpu"
        steps = list(torch.full((len(masters),), float(self.updates), device=device).unbind())
        beta1, beta2 = options.betas
        adamw(
            masters, gradients, first, second, [], steps,
            foreach=not self.fused, fused=self.fused, amsgrad=False, beta1=beta1, beta2=beta2, lr=lr,
            weight_decay=self.weight_decay, eps=options.eps, maximize=False,
        )  # fmt: skip

    def _sgd(
        self, options: OptimizerOptions, masters: list[torch.Tensor], gradients: list[torch.Tensor], lr: float
    ) -> None:
        buffers = [self._moments.get(name, {}).get("momentum_buffer") for name in self.names]
        sgd(
            masters, gradients, buffers,
            foreach=True, weight_decay=self.weight_decay, momentum=options.momentum, lr=lr, dampening=0.0,
            nesterov=False, maximize=False,
        )  # fmt: skip
        for name, buffer in zip(self.names, buffers, strict=True):
            if buffer is not None:
                self._moments[name] = {"momentum_buffer": buffer}
