"""What Megatron-Core calls the tensors of a llama-like model, and how it packs them. Torch-free.

The names are those of its distributed checkpoints, where a norm's weight is told with the product that follows it; of
each query group the rows of its queries, of its key and of its value lie together, and a gate's before those of up.
"""

from __future__ import annotations

from hetero.models.config import Config
from hetero.models.hf_model import HfModel, config_error
from hetero.models.registry import architecture
from hetero.models.weight_map import WeightMap
from hetero.models.weight_rules import Names, Rule, Table

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Those that Megatron's own GPT computes as they are, by its options."""
LAYERS = "decoder.layers."
_ATTENTION, _MLP = LAYERS + "{layer}.self_attention.", LAYERS + "{layer}.mlp."


def megatron_map(model: HfModel) -> WeightMap:
    """Foreign names say the layer, as `decoder.layers.3.mlp.linear_fc2.weight`. Raises ModelError for other types."""
    if model.model_type not in FAMILIES:
        rule = f"Megatron's names are known here for {', '.join(FAMILIES)}"
        raise config_error("model_type", model.model_type, rule, "go by way of a Hugging Face directory")
    told = architecture(model)
    queries, keys = (told.tensors(1, 1)[f"{part}.weight"].layout.shape[0] for part in "qk")
    groups = keys * Config(model).integer("num_attention_heads", 32) // queries
    return Names(_EMBEDDING, (_attention(groups), _FEED_FORWARD), _HEAD, prefix="").map(told)


def _attention(groups: int) -> Table:
    packed: dict[str | tuple[str, ...], str | Rule] = {
        tuple(f"{part}.{kind}" for part in "qkv"): Rule(f"{_ATTENTION}linear_qkv.{kind}", groups=groups)
        for kind in ("weight", "bias")
    }
    return {
        "norm.weight": _ATTENTION + "linear_qkv.layer_norm_weight",
        **packed,
        **{f"o.{kind}": f"{_ATTENTION}linear_proj.{kind}" for kind in ("weight", "bias")},
        **{f"{part}_norm.weight": f"{_ATTENTION}{part}_layernorm.weight" for part in "qk"},
    }


_FEED_FORWARD: Table = {
    "norm.weight": _MLP + "linear_fc1.layer_norm_weight",
    **{(f"gate.{kind}", f"up.{kind}"): Rule(f"{_MLP}linear_fc1.{kind}") for kind in ("weight", "bias")},
    **{f"down.{kind}": f"{_MLP}linear_fc2.{kind}" for kind in ("weight", "bias")},
}
_EMBEDDING: Table = {"embedding.weight": "embedding.word_embeddings.weight"}
_HEAD: Table = {"norm.weight": "decoder.final_layernorm.weight", "head.weight": "output_layer.weight"}
