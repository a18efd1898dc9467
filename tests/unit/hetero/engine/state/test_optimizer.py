"""The update is torch's, to the bit, and can be put down and taken up again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from hetero.engine.state.loss_scale import LossScale
from hetero.engine.state.optimizer import Optimizer, gradient_scale, learning_rate
from hetero.engine.state.state import State
from hetero.layers.live_bytes import LiveBytes
from hetero.words.options import LossScaleOptions, OptimizerOptions

ADAMW = OptimizerOptions(lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)
SGD = OptimizerOptions(name="sgd", lr=0.05, weight_decay=0.1)
MOMENTUM = OptimizerOptions(name="sgd", lr=0.05, momentum=0.9)
RULES = pytest.mark.parametrize(
    ("options", "fused"),
    [(ADAMW, False), (ADAMW, True), (SGD, False), (MOMENTUM, False)],
    ids=["adamw", "fused adamw", "sgd", "momentum"],
)

Tensors = dict[str, torch.Tensor]


def _tensors(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (3, 4), "norm": (4,), "bias": (2,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _ours(options: OptimizerOptions, parameters: Tensors, fused: bool = False) -> Optimizer:
    return Optimizer(options, _state(parameters), {"matrix"}, fused)


def _state(parameters: Tensors) -> State:
    state = State(0, LossScale.of(LossScaleOptions(), {}), values=parameters)
    state.make_masters(parameters)
    return state


def _theirs(options: OptimizerOptions, parameters: Tensors) -> torch.optim.Optimizer:
    decays = {name: options.weight_decay if name == "matrix" else 0.0 for name in parameters}
    groups = [{"params": [value], "weight_decay": decays[name]} for name, value in parameters.items()]
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps)


@RULES
def test_plans_count_what_an_update_keeps_and_needs_meanwhile(options: OptimizerOptions, fused: bool) -> None:
    """Numbers for each parameter, by torch's own arithmetic: moments from the first step on, temporaries in each."""
    told, numbers = options.update, 200 * 200
    with LiveBytes() as live:
        masters = {"matrix": torch.ones(200, 200)}
        optimizer, before = _ours(options, masters, fused), live.now
        for _ in range(2):
            gradients = {"matrix": torch.ones(200, 200)}
            live.peak = began = live.now
            optimizer.step(gradients, 1.0, 0.1)
            needed = live.peak - began
            del gradients
        assert live.now - before == pytest.approx(4 * numbers * told.moments, abs=100)
        assert needed == pytest.approx(4 * numbers * (told.temporaries if fused else told.unfused), abs=100)


def _run(optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.step(_tensors(100 + step), 0.5, 0.01 * (step + 1))


@RULES
def test_steps_are_those_of_torch(options: OptimizerOptions, fused: bool) -> None:
    parameters, reference = _tensors(0), _tensors(0)
    _run(_ours(options, parameters, fused), range(5))
    theirs = _theirs(options, reference)
    for step in range(5):
        for name, gradient in _tensors(100 + step).items():
            reference[name].grad = gradient * 0.5
        for group in theirs.param_groups:
            group["lr"] = 0.01 * (step + 1)
        theirs.step()
    for name, value in reference.items():
        torch.testing.assert_close(parameters[name], value, rtol=1e-6, atol=1e-7)


@RULES
def test_slices_make_no_difference(options: OptimizerOptions, fused: bool) -> None:
    whole, sliced, told = _tensors(0), _tensors(0), list[tuple[str, float]]()
    _run(_ours(options, whole, fused), range(3))
    optimizer = _ours(options, sliced, fused)

    def updated(names: Sequence[str]) -> None:
        told.extend((name, float(sliced[name].sum())) for name in names)

    for step in range(3):
        optimizer.step(_tensors(100 + step), 0.5, 0.01 * (step + 1), [["norm"], ["bias", "matrix"]], updated)
    assert all(torch.equal(value, sliced[name]) for name, value in whole.items())
    assert told[-3:] == [(name, float(whole[name].sum())) for name in ("norm", "bias", "matrix")], "when it is updated"


@RULES
def test_restored_state_goes_on_to_the_bit(options: OptimizerOptions, fused: bool) -> None:
    whole, first, second = (_state(_tensors(seed)) for seed in (0, 0, 9))
    _run(Optimizer(options, whole, {"matrix"}, fused), range(6))
    _run(Optimizer(options, first, {"matrix"}, fused), range(3))
    second.updates = first.updates
    for name, kinds in first.owned().items():
        second.restore(name, {kind: _view_of_more(value) for kind, value in kinds.items()})
    _run(Optimizer(options, second, {"matrix"}, fused), range(3, 6))
    for name, kinds in whole.owned().items():
        assert kinds.keys() == second.owned()[name].keys()
        assert all(torch.equal(value, second.owned()[name][kind]) for kind, value in kinds.items())


def _view_of_more(value: torch.Tensor) -> torch.Tensor:
    """The same values, far apart in memory."""
    return torch.stack((value, torch.full_like(value, 7.0)), dim=-1)[..., 0]


@RULES
def test_state_has_the_kinds_that_torch_keeps(options: OptimizerOptions, fused: bool) -> None:
    state = _state(_tensors(0))
    _run(Optimizer(options, state, {"matrix"}, fused), range(1))
    moments = {"adamw": {"exp_avg", "exp_avg_sq"}, "sgd": {"momentum_buffer"} if options.momentum else set()}
    assert all(kinds.keys() == {"parameter"} | moments[options.name] for kinds in state.owned().values())


def test_float32_masters_share_their_memory() -> None:
    parameters = _tensors(0)
    optimizer = _ours(SGD, parameters)
    assert all(optimizer.masters[name].data_ptr() == value.data_ptr() for name, value in parameters.items())


def test_narrow_parameters_have_wide_masters() -> None:
    """Updates too small for bfloat16 add up."""
    optimizer = Optimizer(SGD, _state({"weight": torch.ones(4, dtype=torch.bfloat16)}), set())
    for _ in range(100):
        optimizer.step({"weight": torch.ones(4)}, 1.0, 1e-4)
    torch.testing.assert_close(optimizer.masters["weight"], torch.full((4,), 0.99))


def test_an_owner_of_nothing_steps_too() -> None:
    state = _state({})
    Optimizer(ADAMW, state, set()).step({}, 1.0, 0.1)
    assert (state.owned(), state.updates) == ({}, 1)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_learning_rate_is_that_of_torch(schedule: str, warmup: int) -> None:
    options = OptimizerOptions(lr=0.1, schedule=schedule, warmup_steps=warmup, min_lr_ratio=0.2)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    after: torch.optim.lr_scheduler.LRScheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    if schedule == "cosine":
        after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20 - warmup, eta_min=0.1 * 0.2)
    rates = after
    if warmup:
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
        rates = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, after], [warmup])
    for step in range(20):
        assert learning_rate(options, step, 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.step()


def test_warm_up_may_be_longer_than_the_run() -> None:
    options = OptimizerOptions(lr=1.0, schedule="cosine", warmup_steps=10)
    assert [learning_rate(options, step, 3) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("clip", [None, 0.5, 100.0])
def test_gradient_scale_divides_and_clips_as_torch_does(clip: float | None) -> None:
    """Sums over 8 tokens; torch clips their mean."""
    sums = list(_tensors(1).values())
    parameters = [torch.zeros_like(value).requires_grad_() for value in sums]
    for parameter, value in zip(parameters, sums, strict=True):
        parameter.grad = value / 8
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip))
    scale = gradient_scale(norm, 8, clip)
    for parameter, value in zip(parameters, sums, strict=True):
        torch.testing.assert_close(value * scale, parameter.grad)
