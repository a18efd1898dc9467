"""The same numbers as transformers' Llama with the same weights, tensor by tensor."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from hetero.models.dimensions import Dimensions
from tests.unit.hetero.models.whole_model import (
    assert_equal_gradients,
    build,
    logical_tensors,
    loss_of,
    small,
    text,
)

_IN_LAYER = {
    "norm": ("input_layernorm", "post_attention_layernorm"),
    **{name: (f"self_attn.{name}_proj",) for name in "qkvo"},
    **{name: (f"mlp.{name}_proj",) for name in ("gate", "up", "down")},
}


def _their_name(ours: str, layers: int) -> str:
    _, unit, part, kind = ours.split(".")
    number = int(unit)
    if number == 0:
        return "model.embed_tokens.weight"
    if number == 2 * layers + 1:
        return "model.norm.weight" if part == "norm" else "lm_head.weight"
    names = _IN_LAYER[part]
    return f"model.layers.{(number - 1) // 2}.{names[(number - 1) % 2 if part == 'norm' else 0]}.{kind}"


def _reference(dims: Dimensions) -> Any:
    from transformers import LlamaForCausalLM  # which takes longer than all that is collected beside

    from tests.llama_config import llama_config

    config = llama_config(
        dims,
        tie_word_embeddings=dims.tie_embeddings,
        attention_bias=dims.qkv_bias,  # also on o, which stays zero here
    )
    return LlamaForCausalLM(config)


CASES = [*itertools.product([1, 2, 8], [False, True]), (4, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("kv_heads", "varied"), CASES)
def test_loss_and_gradients_equal_transformers(kv_heads: int, varied: bool) -> None:
    """`varied` ties the embeddings, has biases, another base of the rotary angles and another epsilon."""
    changes = {"tie_embeddings": True, "qkv_bias": True, "rope_theta": 500.0, "norm_eps": 1e-3} if varied else {}
    dims = small(kv_heads=kv_heads, **changes)
    units, theirs, batch = build(dims), _reference(dims), text(dims)
    ours = {_their_name(name, dims.layers): t.parameter for name, t in logical_tensors(units).items()}
    parameters = dict(theirs.named_parameters())
    assert parameters.keys() - ours.keys() == {name for name in parameters if name.endswith("o_proj.bias")}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(ours.get(name, torch.zeros(())))

    loss = loss_of(units, batch)
    loss.backward()
    logits_BTV = theirs(batch.tokens_BT).logits
    reference = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.labels_BT.flatten(), reduction="sum")
    reference.backward()

    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    found, wanted = ({name: np.asarray(tensors[name].grad) for name in ours} for tensors in (ours, parameters))
    assert_equal_gradients(found, wanted, 1e-5)
