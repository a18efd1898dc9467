"""transformers' modules, looked into: what is made of them, and what is refused."""

from __future__ import annotations

import pytest

from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel
from hetero.models.provided.described import describe
from hetero.models.provided.frame import frame_of
from hetero.models.provided.names import places
from tests.tiny_provided import PROVIDED, tiny_provided

pytestmark = pytest.mark.slow


def test_layers_are_units_cut_by_their_own_plan() -> None:
    told = describe(tiny_provided("arcee"))
    assert [told.kinds[kind].kind for kind in told.units] == ["embedding", "layer", "layer", "head"]
    assert told.tps == (1, 2)
    layer = told.kinds[1]
    assert {t.name for t in layer.tensors if t.cut is None} == {
        "input_layernorm.weight", "post_attention_layernorm.weight",
    }  # fmt: skip
    assert layer.work.flops[0] == 2 * sum(a * b for a, b in (t.shape for t in layer.tensors if len(t.shape) == 2))
    assert layer.work.collectives == 2


def test_what_all_heads_share_is_known_by_the_graph() -> None:
    """The norm of each head's queries lies between products that are cut, and those of the stream do not."""
    layer = describe(tiny_provided("exaone4")).kinds[1]
    assert {t.name for t in layer.tensors if t.share} == {"self_attn.q_norm.weight", "self_attn.k_norm.weight"}


@pytest.mark.parametrize("kind", ["dots1", *(pytest.param(k, marks=pytest.mark.exhaustive) for k in PROVIDED)])
def test_names_are_the_same_by_small_numbers(kind: str) -> None:
    """As of a model too large to number all of its elements."""
    causal = frame_of(tiny_provided(kind)).causal
    assert places(causal, small=True) == places(causal, small=False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "gpt_bigcode"}, "no plan of how it is cut"),
        ({"model_type": "seed_oss"}, "dropout is not supported"),
        ({"model_type": "phi4_multimodal"}, "images and sound"),
        ({"model_type": "dots1", "output_router_logits": True}, "of all layers and samples at once"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        describe(HfModel.of(changes))
