"""The update: clipped, averaged gradients into the owner's float32 state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from hetero.engine.state.state import State, Tensors
from hetero.words.options import OptimizerOptions


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


def moment_kinds(options: OptimizerOptions) -> tuple[str, ...]:
    """What is kept beside each master once there was an update, by torch's own names."""
    if options.name == "adamw":
        return "exp_avg", "exp_avg_sq"
    return ("momentum_buffer",) if options.momentum else ()


def _nobody(names: Sequence[str]) -> None: ...


class Optimizer:
    """Updates the masters of a state, and the moments that go with them; a rank that owns nothing only counts.

    The arithmetic is torch's, by its functional form: torch's optimizer classes load a compiler at first use, seconds
    in every rank. `matrices` are the tensors that decay; `fused` says whether the device has torch's fused AdamW, which
    reads and writes memory once where the plain one does ten times.
    """

    def __init__(self, options: OptimizerOptions, state: State, matrices: set[str], fused: bool = False) -> None:
        self._options, self._state, self._fused, self._matrices = options, state, fused, matrices

    @property
    def masters(self) -> Tensors:
        return self._state.masters

    def step(
        self,
        gradients: Tensors,
        scale: float,
        lr: float,
        slices: Sequence[Sequence[str]] | None = None,
        updated: Callable[[Sequence[str]], None] = _nobody,
    ) -> None:
        """Updates the masters, slice after slice (None: all at once), and tells of each. `gradients` are sums; they are
        scaled in place."""
        for names in [list(self.masters)] if slices is None else slices:
            self._update(names, gradients, scale, lr)
            updated(names)
        self._state.updates += 1

    def _update(self, names: Sequence[str], gradients: Tensors, scale: float, lr: float) -> None:
        if names:
            torch._foreach_mul_([gradients[name] for name in names], scale)
        rule = self._adamw if self._options.name == "adamw" else self._sgd
        for decays, weight_decay in ((True, self._options.weight_decay), (False, 0.0)):
            if some := [name for name in names if (name in self._matrices) == decays]:
                rule(some, weight_decay, [gradients[name] for name in some], lr)

    def _adamw(self, names: list[str], weight_decay: float, gradients: list[torch.Tensor], lr: float) -> None:
        options, moments = self._options, self._state.moments
        masters = [self.masters[name] for name in names]
        for name, master in zip(names, masters, strict=True):
            if not moments.get(name):
                moments[name] = {kind: torch.zeros_like(master) for kind in moment_kinds(options)}
        first, second = ([moments[name][kind] for name in names] for kind in moment_kinds(options))
        device = masters[0].device if self._fused else "cpu"
        steps = list(torch.full((len(masters),), float(self._state.updates), device=device).unbind())
        beta1, beta2 = options.betas
        adamw(
            masters, gradients, first, second, [], steps,
            foreach=not self._fused, fused=self._fused, amsgrad=False, beta1=beta1, beta2=beta2, lr=lr,
            weight_decay=weight_decay, eps=options.eps, maximize=False,
        )  # fmt: skip

    def _sgd(self, names: list[str], weight_decay: float, gradients: list[torch.Tensor], lr: float) -> None:
        options, moments = self._options, self._state.moments
        buffers = [moments.get(name, {}).get("momentum_buffer") for name in names]
        sgd(
            [self.masters[name] for name in names], gradients, buffers,
            foreach=True, weight_decay=weight_decay, momentum=options.momentum, lr=lr, dampening=0.0,
            nesterov=False, maximize=False,
        )  # fmt: skip
        for name, buffer in zip(names, buffers, strict=True):
            if buffer is not None:
                moments[name] = {"momentum_buffer": buffer}
