"""An independent reference: transformers' Llama with the same weights, against three families that train together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from hetero.data.source import Prepared
from hetero.models.dimensions import Dimensions
from tests.distributed.cases import Case, find
from tests.distributed.fleet import Standing
from tests.distributed.laws import TOLERANCES, tensor_deviation
from tests.distributed.plain import GlobalBatches, PlainModel
from tests.llama_config import llama_config

NAMES_IN_LAYER = (
    {"norm": "input_layernorm", **{name: f"self_attn.{name}_proj" for name in "qkvo"}},
    {"norm": "post_attention_layernorm", **{name: f"mlp.{name}_proj" for name in ("gate", "up", "down")}},
)


def _names(dims: Dimensions) -> dict[str, str]:
    """Their names by ours."""
    head = 2 * dims.layers + 1
    names = {
        "units.0.embedding.weight": "model.embed_tokens.weight",
        f"units.{head}.norm.weight": "model.norm.weight",
        f"units.{head}.head.weight": "lm_head.weight",
    }
    for unit in range(1, head):
        layer, half = divmod(unit - 1, 2)
        for ours, theirs in NAMES_IN_LAYER[half].items():
            names[f"units.{unit}.{ours}.weight"] = f"model.layers.{layer}.{theirs}.weight"
    return names


def _llama(model: PlainModel) -> LlamaForCausalLM:
    dims = model.dims
    llama = LlamaForCausalLM(llama_config(dims, tie_word_embeddings=False))
    names = _names(dims)
    llama.load_state_dict({names[name]: value.detach() for name, value in model.parameters.items()})
    return llama


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(find("tp grows"), id="tp grows", marks=pytest.mark.exhaustive),
        pytest.param(find("7, 2 and 1 in stages"), id="7, 2 and 1 in stages"),
    ],
)
def test_loss_and_gradients(case: Case, fleet: Standing, text: Prepared, tmp_path: Path) -> None:
    model = PlainModel(case.job.dimensions, seed=1).unsettle()
    model.save(tmp_path)
    run = fleet.train(case.job, case.plan, until=1, begin_from=tmp_path, capture=[0])

    llama, batch = _llama(model), GlobalBatches(text, case.job)[0]
    logits_BTV = llama(batch.tokens_BT).logits
    loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.labels_BT.flatten())
    loss.backward()
    theirs = dict(llama.named_parameters())
    gradients = {ours: np.asarray(theirs[name].grad) for ours, name in _names(case.job.dimensions).items()}

    limit = TOLERANCES["float32"]
    assert run.losses[0] == pytest.approx(loss.item(), rel=limit.loss)
    worst = tensor_deviation(run.gradients(0), gradients, limit.floor)
    assert worst.deviation <= limit.gradient, worst
