"""Experts compute what each expert for each token would, keep what they tell, and let in their loss where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from backends.operators import Operators
from balancer.plan.recompute import Recompute
from hetero.layers.auxiliary import AuxiliaryLoss
from hetero.layers.builder import Builder, tensors
from hetero.layers.cross_entropy import IGNORED
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.batch import Batch
from hetero.models.parts.experts import Experts
from hetero.models.parts.experts_module import ExpertsModule
from hetero.models.parts.norm import RMSNorm
from hetero.models.parts.routing import Routing
from hetero.models.parts.routing_module import RouterModule
from hetero.models.unit import Unit
from hetero.models.unit_module import UnitModule
from tests.unit.hetero.models.expert_parts import MIXTRAL, PARTS, STD, D, plainly

NOTHING = Batch(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
MIXTRAL_BUSY = replace(MIXTRAL, routing=replace(MIXTRAL.routing, auxiliary=0.5))
EVERY = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


def _built(part: Experts, **how: Any) -> ExpertsModule:
    """With no value that is special."""
    made = ExpertsModule(Builder(TensorGroup(), Operators(), **how), part, {s.name: s for s in part.tensors(1)})
    generator = torch.Generator().manual_seed(1)
    for tensor in tensors(made):
        if tensor.parameter.ndim < 3:
            tensor.parameter.data += 0.2 * torch.randn(tensor.parameter.shape, generator=generator)
    return made


def _x(sequences: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randn(sequences, length, D, generator=torch.Generator().manual_seed(0))


@EVERY
@pytest.mark.parametrize("put_off", [False, True])
def test_values_and_gradients_are_those_of_each_expert_for_each_token(part: Experts, put_off: bool) -> None:
    """Also the auxiliary loss's, whose scale is that of the tokens' loss; and where weights' gradients come apart."""
    auxiliary, weight_gradients = AuxiliaryLoss(), WeightGradients()
    auxiliary.scale = 3.0
    made = _built(part, auxiliary=auxiliary, weight_gradients=weight_gradients)
    mine = {tensor.name: tensor.parameter for tensor in tensors(made)}
    theirs = {name: p.detach().double().requires_grad_() for name, p in mine.items()}
    x_BTD, wide_BTD = _x().requires_grad_(), _x().double().requires_grad_()

    y_BTD, (wanted_BTD, loss) = made(x_BTD, NOTHING), plainly(part, theirs, wide_BTD)
    gradient_BTD = torch.randn(y_BTD.shape, generator=torch.Generator().manual_seed(2))
    if put_off:
        with weight_gradients.keeping() as pairs:
            y_BTD.backward(gradient_BTD)
        assert all(weight.grad is None for weight in weight_gradients.weights)
        for pair in pairs:
            held = (*pair[1:3], *(pair.dispatch[:2] if pair.dispatch else ()))
            assert not any(tensor.requires_grad for tensor in held), "a pair would hold the graph that it came from"
            weight_gradients.make(pair)
    else:
        y_BTD.backward(gradient_BTD)
    torch.autograd.backward([wanted_BTD, loss], [gradient_BTD.double(), torch.tensor(3.0).double()])

    assert _apart(y_BTD, wanted_BTD) < 1e-6
    assert _apart(x_BTD.grad, wide_BTD.grad) < 2e-6
    assert mine.keys() == theirs.keys()
    for name, parameter in mine.items():
        if name == "router.correction":
            assert parameter.grad is None
        else:
            assert _apart(parameter.grad, theirs[name].grad) < 2e-6, name


def _apart(found: torch.Tensor | None, wanted: torch.Tensor | None) -> float:
    assert found is not None
    assert wanted is not None
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def test_a_second_micro_batch_adds_and_an_expert_without_tokens_gets_zeros() -> None:
    part = replace(MIXTRAL, routing=Routing(8, 1))
    made, x_BTD = _built(part), _x(1, 3)
    for _ in range(2):
        made(x_BTD, NOTHING).sum().backward()
    once = _built(part)
    once(x_BTD, NOTHING).sum().backward()
    assert made.down.weight.grad is not None
    torch.testing.assert_close(made.down.weight.grad, 2 * once.down.weight.grad)
    assert sum(not expert.any() for expert in made.down.weight.grad) >= 5


def test_padding_is_not_in_the_auxiliary_loss() -> None:
    """The gradient is that of the sample without it."""
    gradients = []
    for length in (12, 7):
        auxiliary, labels_BT = AuxiliaryLoss(), torch.arange(length)[None].clone()
        labels_BT[:, 7:] = IGNORED
        documents_BT = torch.tensor([[0] * 4 + [1] * 3 + [2] * 5])[:, :length]
        router = _built(MIXTRAL_BUSY, auxiliary=auxiliary).router
        routes = router(_x(1)[:, :length], Batch(labels_BT, labels_BT, None, documents_BT))
        (0 * routes.weights_NC.sum()).backward()
        gradients.append(router.weight.grad)
    assert gradients[0] is not None
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


def test_equal_scores_go_to_lower_numbers() -> None:
    """Whatever the chip's `topk` would say: ranks of a group must choose alike."""
    routing = Routing(64, 5, groups=8, chosen_groups=3)
    specs = {spec.name: spec for spec in routing.tensors(D, 1, STD)}
    router = RouterModule(Builder(TensorGroup(), Operators()), routing, specs)
    torch.nn.init.zeros_(router.weight)
    assert router(_x(), NOTHING).experts_NC.unique(dim=0).tolist() == [[0, 1, 2, 3, 4]]


@EVERY
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
@pytest.mark.parametrize(
    "recompute",
    [pytest.param(way, marks=() if way == "selective" else pytest.mark.slow) for way in get_args(Recompute)],
)
def test_bytes_are_those_of_the_tensors_that_are_there(part: Experts, dtype: torch.dtype, recompute: Recompute) -> None:
    """What is kept to a hundredth; what is needed meanwhile is told within a tenth or, where values are made again,
    never as less and not as a third more."""
    part = replace(part, routing=replace(part.routing, auxiliary=0.0))
    unit, length = Unit("experts", (RMSNorm(D, 1e-5), part), residual=True), 128
    made = UnitModule(Builder(TensorGroup(), Operators(), dtype), unit, unit.tensors(1), recompute)
    x_BTD = torch.randn(1, length, D, dtype=dtype, requires_grad=True)
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        (out,) = made({"x_BTD": x_BTD}, NOTHING).values()
        forward, kept = live.peak, live.now
        gradient = torch.ones_like(out)
        live.peak = live.now
        out.backward(gradient)
    size = dtype.itemsize
    told = unit.work(length, size, size * length * D).under(recompute)
    given = 0 if recompute == "none" and size < 4 else size * length * D
    assert kept == pytest.approx(told.activation_bytes - given + told.boundary_bytes, rel=0.01)
    again, over = told.remade.on_rank(1), 1.1 if recompute == "none" else 1.34
    assert 0.97 * forward <= kept + told.boundary_bytes + told.forward_bytes <= over * forward
    needs = kept + told.boundary_bytes + again + told.backward_bytes
    assert 0.97 * live.peak <= needs <= over * live.peak


@EVERY
def test_what_waits_for_weight_gradients_is_told(part: Experts) -> None:
    unit, length, weight_gradients = Unit("experts", (RMSNorm(D, 1e-5), part), residual=True), 32, WeightGradients()
    made = UnitModule(
        Builder(TensorGroup(), Operators(), weight_gradients=weight_gradients), unit, unit.tensors(1), "none"
    )
    x_BTD = torch.randn(1, length, D, requires_grad=True)
    (out,) = made({"x_BTD": x_BTD}, NOTHING).values()
    with weight_gradients.keeping() as pairs:
        out.backward(torch.ones_like(out))
    kept = {t.untyped_storage().data_ptr(): t for one in pairs for t in (one.x_ND, one.gradient_NE)}
    told = unit.work(length, 4, 4 * length * D)
    bytes_ = sum(t.untyped_storage().nbytes() for t in kept.values())
    assert bytes_ == pytest.approx(told.pairs.on_rank(1), rel=0.02)
    rows = length * part.routing.chosen
    flops = [2.0 * (rows if p.dispatch else length) * p.x_ND.shape[1] * p.gradient_NE.shape[1] for p in pairs]
    assert told.weight_flops == sum(flops)


def test_the_chosen_ones_are_work_and_all_of_them_are_memory() -> None:
    few, many = (Unit("e", (replace(MIXTRAL, routing=Routing(count, 2)),)).work(16, 4, 0) for count in (4, 64))
    assert few.weight_flops == many.weight_flops == 16 * 2 * 3 * 2.0 * D * 88
    assert many.parameters == 64 * (3 * D * 88 + D)
    assert few.largest_tensor == many.largest_tensor == D * 88
