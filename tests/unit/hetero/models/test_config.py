"""What a family does not know of config.json is refused by key; nothing is ignored in silence."""

from __future__ import annotations

from typing import Any

import pytest

from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture, family_names, weights
from tests.tiny_models import TINY, tiny

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("llama", {"hidden_act": "relu"}, r"hidden_act = relu: llama is supported with silu alone"),
    "dropout": ("qwen2", {"attention_dropout": 0.1}, r"attention_dropout = 0.1: .* 0.0 alone"),
    "type of positions": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
                          r"rope_parameters.rope_type = dynamic: .* default, linear, llama3, yarn, longrope"),
    "key of positions": ("llama", {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 2]}},
                         r"rope_parameters.mrope_section = \[1, 2\]: is not known"),
    "what a type of positions needs": ("llama", {"rope_parameters": {"rope_type": "linear"}},
                                       r"rope_parameters.factor = None: is what the type linear needs"),
    "window of a family without": ("llama", {"sliding_window": 8}, r"sliding_window = 8: is not known of llama"),
    "quantization": ("gemma", {"quantization_config": {"bits": 4}}, r"quantization_config = .* not known of gemma"),
    "kind of layer": ("gemma2", {"layer_types": ["chunked_attention"] * 2}, r"layer_types = .* names full_attention"),
    "heads": ("llama", {"num_attention_heads": 3}, r"num_attention_heads = 3: must divide hidden_size"),
    "no number": ("llama", {"num_hidden_layers": "2"}, r"num_hidden_layers = 2: must be a positive integer"),
    "group of heads that is ignored": ("gpt_neox", {"num_key_value_heads": 2}, r"num_key_value_heads = 2: gpt_neox"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_known_is_refused(kind: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=rf"^model.hf: config.json: {said}"):
        architecture(tiny(kind, **changes))


@pytest.mark.parametrize("key", ["num_hidden_layers", "head_dim", "hidden_size"])
def test_what_would_not_come_to_an_end_is_refused(key: str) -> None:
    for read in (architecture, weights):
        with pytest.raises(ModelError, match="at most"):
            read(HfModel.of({**TINY["llama"], "model_type": "llama", key: 16_000_000 if "layers" in key else 10**15}))


def test_what_is_of_labels_and_generation_does_not_matter() -> None:
    plain = architecture(tiny("llama"))
    assert architecture(tiny("llama", id2label={"0": "A"}, use_cache=False, torch_dtype="bfloat16", _name="x")) == plain


def test_positions_as_they_were_told_of_old() -> None:
    scaled = {"type": "linear", "factor": 2.0}
    old = architecture(tiny("llama", rope_parameters=None, rope_theta=5e5, rope_scaling=scaled))
    new = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    assert old == architecture(tiny("llama", rope_parameters=new))
    assert old != architecture(tiny("llama", rope_parameters={**new, "rope_theta": 1e4}))


def test_learned_positions_limit_the_length_of_a_sample() -> None:
    assert architecture(tiny("gpt2")).longest == TINY["gpt2"]["n_positions"]
    assert architecture(tiny("llama")).longest is None


def test_an_unknown_type_says_what_is_near() -> None:
    with pytest.raises(ModelError, match=r"model.hf = qwen4: known architectures: .*; did you mean qwen"):
        architecture(HfModel.of({"model_type": "qwen4"}))
    with pytest.raises(ModelError, match="model_type = None"):
        HfModel.of({})


def test_each_family_has_a_tiny_model() -> None:
    assert set(TINY) == set(family_names())


def test_another_vocabulary_is_another_model() -> None:
    model = tiny("gpt2")
    assert (model.vocab, model.with_vocab(7).vocab) == (61, 7)
    assert model.with_vocab(61) == model
    assert hash(model.with_vocab(61)) == hash(model)
