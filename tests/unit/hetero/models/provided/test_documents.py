"""Documents of one sample do not see each other on transformers' own modules, or the type is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel
from hetero.models.provided.calls import calls_of
from hetero.models.provided.documents import OWN_WAY
from hetero.models.provided.part import ProvidedPart
from hetero.models.registry import architecture, served
from tests.tiny_provided import ALONE, PROVIDED, tiny_provided
from tests.unit.hetero.models.whole_model import (
    assert_equal_gradients,
    build,
    gradients_of,
    logical_tensors,
    loss_of,
    packed,
)

pytestmark = pytest.mark.slow

COVERING = {
    "arcee", "cohere2_moe", "deepseek_v32", "doge", "dots1", "exaone4", "gptj", "longcat_flash", "mimo_v2_flash",
    "minicpm3", "ministral", "phi",
}  # fmt: skip
"""Masks of all and of windows, index scores, plain and interleaved angles, latent products, experts, a sink, biases."""
SPARSE = "minimax_m3_vl_text"
BLOCKS = {"layer_types": ["minimax_m3_sparse"] * 2, "index_block_size": 4, "index_topk_blocks": 1}
"""Of a type that takes packed samples without them."""
REASONS = {**ALONE, SPARSE: OWN_WAY["minimax_m3_sparse"]}
SHOWN_ALONE = {"afmoe", SPARSE, "qwen3_next"}
PACKED = PROVIDED.keys() - ALONE.keys()


def _losses_and_gradients(model: HfModel) -> tuple[list[float], list[dict[str, np.ndarray]]]:
    """Of samples of several documents, and of these one by one."""
    together, alone = packed(model.vocab)
    losses, gradients = [], []
    for batches in ([together], alone):
        units = build(model)
        for tensor in logical_tensors(units).values():
            if not tensor.parameter.requires_grad and tensor.parameter.dim() > 1:
                tensor.parameter.fill_(0.5)  # how fast a state decays, which would begin at 0
        loss = sum(loss_of(units, batch) for batch in batches)
        loss.backward()  # type: ignore[union-attr]
        losses.append(loss.item())  # type: ignore[union-attr]
        gradients.append(gradients_of(units))
    return losses, gradients


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=() if one in COVERING else pytest.mark.exhaustive) for one in sorted(PACKED)]
)
def test_a_packed_sample_has_the_gradients_of_its_documents_one_by_one(kind: str) -> None:
    model = tiny_provided(kind)
    assert architecture(model).alone is None
    losses, gradients = _losses_and_gradients(model)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert_equal_gradients(*gradients, 1e-5)


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=() if one in SHOWN_ALONE else pytest.mark.exhaustive) for one in REASONS]
)
def test_types_whose_documents_see_each_other_are_refused_with_the_reason(kind: str) -> None:
    """And not for nothing."""
    model = HfModel.of({**tiny_provided(kind).values, **(BLOCKS if kind == SPARSE else {})})
    assert REASONS[kind] in str(architecture(model).alone)
    _, gradients = _losses_and_gradients(model)
    with pytest.raises(AssertionError):
        assert_equal_gradients(*gradients, 1e-4)


def test_angles_that_grow_with_a_sample_are_refused() -> None:
    """They are those of the longest document, of whichever samples are computed together."""
    values = tiny_provided("arcee").values
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    growing = HfModel.of({**values, "rope_parameters": rope})
    assert "dynamic" in str(architecture(growing).alone)
    assert "samples of one document" in served(growing)
    assert "samples of several documents" in served(tiny_provided("arcee"))


def test_what_layers_share_is_made_once_and_of_plain_samples_for_all_batches() -> None:
    model = tiny_provided("mimo_v2_flash")
    part, (together, alone) = architecture(model).units[1].parts[0], packed(model.vocab)
    assert isinstance(part, ProvidedPart)
    plain = [Batch(one.tokens_BT, one.labels_BT) for one in (together, together)]
    first, again = (calls_of(part, one, torch.float32) for one in plain)
    assert first is again
    assert calls_of(part, together, torch.float32) is calls_of(part, together, torch.float32)
    assert calls_of(part, together, torch.float32) is not calls_of(part, packed(model.vocab)[0], torch.float32)
    shapes = {tuple(calls_of(part, one, torch.float32)[0].named["position_ids"].shape) for one in alone}
    assert len(shapes) == len({one.tokens_BT.shape[1] for one in alone})
