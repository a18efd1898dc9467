"""Every type of Hugging Face's models that there is a family of: what transformers computes and stores of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture, family_names, weights
from tests.tiny_models import TINY, tiny
from tests.unit.hetero.models.whole_model import assert_equal_gradients, build, logical_tensors, loss_of, text

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("kind", family_names())]


def _theirs(model: HfModel) -> Any:
    """transformers' own of it, in float32, no value of which is a special one."""
    from transformers import AutoConfig, AutoModelForCausalLM  # which takes longer than all that is collected beside

    config = AutoConfig.for_model(**model.values)
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(2.0).add_(0.1 * torch.randn(parameter.shape) * (parameter.dim() == 1))
    return theirs


def _stored(model: HfModel, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names of a directory, without those that are another's; all that are there are known."""
    found = weights(model)
    assert tensors.keys() - found.ties.keys() == found.foreign.keys()
    return {name: tensors[name] for name in found.foreign}


def _as_saved(theirs: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors like transformers' own by the names that it saves them under."""
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(theirs, tensors)


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros where there is none: of what is never trained."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _taken(tensors: dict[str, torch.Tensor], name: str, slices: tuple[slice, ...]) -> torch.Tensor:
    assert all(one.step is None for one in slices)
    return tensors[name][slices]


def test_loss_and_gradients_equal_transformers(kind: str) -> None:
    model = tiny(kind)
    theirs, units, batch, there = _theirs(model), build(model), text(model), weights(model)
    stored = _stored(model, _as_saved(theirs, theirs.state_dict()))
    ours = logical_tensors(units)
    with torch.no_grad():
        for name, tensor in ours.items():
            region = tensor.layout.region(0)
            tensor.parameter.copy_(there.read(name, region, lambda *asked: _taken(stored, *asked)))

    loss = loss_of(units, batch)
    loss.backward()
    logits_BTV = theirs(batch.tokens_BT).logits
    wanted = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.labels_BT.flatten(), reduction="sum")
    wanted.backward()

    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    made = _as_saved(theirs, {name: _gradient(tensor) for name, tensor in theirs.state_dict(keep_vars=True).items()})
    gradients = {name: np.asarray(made[name]) for name in there.foreign}
    found = {name: np.asarray(there.write(name, lambda one: _gradient(ours[one].parameter))) for name in there.foreign}
    assert_equal_gradients(found, gradients, 1e-5)


def test_the_map_gives_back_every_bit(kind: str) -> None:
    model = tiny(kind)
    found = weights(model)
    numbers = {name: torch.randn(shape) for name, shape in found.foreign.items()}
    shapes = {spec.name: spec.layout.shape for unit in range(len(architecture(model).units))
              for spec in architecture(model).tensors(unit, 1).values()}  # fmt: skip
    logical = {
        name: found.read(name, tuple((0, extent) for extent in shape), lambda *asked: _taken(numbers, *asked))
        for name, shape in shapes.items()
    }
    assert {name: tensor.shape for name, tensor in logical.items()} == shapes
    for name, tensor in numbers.items():
        assert torch.equal(found.write(name, logical.__getitem__), tensor), name


def test_what_config_json_leaves_out_is_as_transformers_has_it(kind: str) -> None:
    from transformers import AutoConfig

    told = AutoConfig.for_model(kind).to_dict()
    assert architecture(HfModel.of({"model_type": kind})) == architecture(HfModel.of(told))
    assert kind in TINY
