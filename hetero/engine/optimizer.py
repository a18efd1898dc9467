"""The update: clipped, averaged gradients into the owner's float32 state."""

from __future__ import annotations

import math

import torch

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


def gradient_scale(norm: float, tokens: int, clip: float | None) -> float:
    """What summed gradients are multiplied by: the mean over tokens, shortened to `clip`. `norm` is of the mean."""
    shorten = 1.0 if clip is None or norm <= clip else clip / (norm + 1e-6)
    return shorten / tokens


class Optimizer:
    """Float32 masters and moments of the shards that this rank owns; other ranks hold none of them.

    `parameters` are the rank's working shards. In float32 a working shard is its own master.
    """

    def __init__(self, options: OptimizerOptions, parameters: dict[str, torch.Tensor], matrices: set[str]) -> None:
        self._options = options
        self.working = parameters
        self.masters = {name: _master(parameter) for name, parameter in parameters.items()}
        groups = [
            {"params": [m for n, m in self.masters.items() if n in matrices], "weight_decay": options.weight_decay},
            {"params": [m for n, m in self.masters.items() if n not in matrices], "weight_decay": 0.0},
        ]
        self._update = _update(options, [group for group in groups if group["params"]])

    def step(self, gradients: dict[str, torch.Tensor], scale: float, lr: float) -> None:
        """Updates the masters and the owner's working shards. `gradients` are sums; they are scaled in place."""
        if self._update is None:
            return
        torch._foreach_mul_([gradients[name] for name in self.masters], scale)
        for name, master in self.masters.items():
            master.grad = gradients[name]
        for group in self._update.param_groups:
            group["lr"] = lr
        self._update.step()
        for master in self.masters.values():
            master.grad = None

    def shards(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The updated parameters in the working precision, to be sent to the other copies."""
        return {name: master.detach().to(dtype) for name, master in self.masters.items()}

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Per tensor: its master ("parameter") and its moments, by torch's own names."""
        moments = self._update.state if self._update is not None else {}
        return {
            name: {
                "parameter": master.detach(),
                **{kind: value for kind, value in moments.get(master, {}).items() if _is_moment(value)},
            }
            for name, master in self.masters.items()
        }

    def restore(self, name: str, kind: str, value: torch.Tensor, updates: int) -> None:
        """Puts back a master or a moment that was saved after `updates` updates."""
        master = self.masters[name]
        if kind == "parameter":
            master.data.copy_(value)
            return
        assert self._update is not None
        state = self._update.state[master]
        state[kind] = value.to(master.device, torch.float32)
        if self._options.name == "adamw":
            state["step"] = torch.tensor(float(updates))

    def moments(self) -> tuple[str, ...]:
        """The kinds of state beside the parameter that this rule keeps."""
        if self._options.name == "adamw":
            return ("exp_avg", "exp_avg_sq")
        return ("momentum_buffer",) if self._options.momentum else ()


def _master(parameter: torch.Tensor) -> torch.nn.Parameter:
    if parameter.dtype == torch.float32:
        return torch.nn.Parameter(parameter.detach(), requires_grad=False)
    return torch.nn.Parameter(parameter.detach().to(torch.float32), requires_grad=False)


def _update(options: OptimizerOptions, groups: list[dict[str, object]]) -> torch.optim.Optimizer | None:
    if not groups:
        return None
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps)
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


def _is_moment(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0
