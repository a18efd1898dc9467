"""Directories of tiny models, whole or with one fault each, and where each fault is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hetero.models.registry import weights
from tests.tiny_models import TINY, tiny
from tests.tiny_provided import tiny_provided

Config = dict[str, Any]
Tensors = dict[str, torch.Tensor]
Plant = Callable[[Config, Tensors], None]


def write(folder: Path, kind: str, plant: Plant = lambda config, tensors: None, **changes: Any) -> str:
    """Equal values in each directory of a kind, but for what `plant` does to them."""
    model = tiny(kind, **changes) if kind in TINY else tiny_provided(kind)
    generator = torch.Generator().manual_seed(1)
    config: Config = json.loads(model.config)
    tensors = {
        name: torch.randn(shape, generator=generator) * 0.1 + (len(shape) == 1 and name.endswith("weight"))
        for name, shape in weights(model).foreign.items()
    }
    plant(config, tensors)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return str(folder)


@dataclass(frozen=True)
class Planted:
    """The fault is in unit `unit`, whose `operator` is to be named, and the cause told in these words."""

    kind: str
    plant: Plant
    unit: int
    operator: str
    cause: str = ""


LAYER = "model.layers.{}."


def _rope_base(config: Config, tensors: Tensors) -> None:
    config["rope_parameters"]["rope_theta"] *= 2


def _transposed(config: Config, tensors: Tensors) -> None:
    name = LAYER.format(1) + "self_attn.q_proj.weight"
    tensors[name] = tensors[name].t()


def _rounded(config: Config, tensors: Tensors) -> None:
    name = LAYER.format(1) + "mlp.down_proj.weight"
    tensors[name] = tensors[name].bfloat16().float()


def _wrong_expert(config: Config, tensors: Tensors) -> None:
    one, other = (LAYER.format(1) + f"block_sparse_moe.experts.{number}.w2.weight" for number in (1, 3))
    tensors[one], tensors[other] = tensors[other], tensors[one]


def _epsilon(config: Config, tensors: Tensors) -> None:
    config["rms_norm_eps"] = 1e-5


def _missing(config: Config, tensors: Tensors) -> None:
    del tensors[LAYER.format(1) + "self_attn.k_proj.weight"]


def _no_tie(config: Config, tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1.001


def _score_scale(config: Config, tensors: Tensors) -> None:
    config["query_pre_attn_scalar"] = 21


def _score_cap(config: Config, tensors: Tensors) -> None:
    config["attn_logit_softcapping"] = 2.5


def _logit_cap(config: Config, tensors: Tensors) -> None:
    config["final_logit_softcapping"] = 4.0


def _residual_scale(config: Config, tensors: Tensors) -> None:
    config["residual_multiplier"] = 0.6


def _head_norm(config: Config, tensors: Tensors) -> None:
    tensors[LAYER.format(1) + "self_attn.k_norm.weight"] *= 1.001


def _embedding(config: Config, tensors: Tensors) -> None:
    tensors["model.embed_tokens.weight"][7] += 0.01


PLANTED = {
    "rope base": Planted("llama", _rope_base, 1, "rotary q"),
    "transposed weight": Planted("llama", _transposed, 3, "q", "q.weight differs: it is transposed"),
    "bf16 rounding": Planted("llama", _rounded, 4, "down", "down.weight differs: it is rounded to bfloat16"),
    "wrong expert": Planted("mixtral", _wrong_expert, 4, "experts.down[1]", "differs in 1, 3"),
    "norm's epsilon": Planted("llama", _epsilon, 1, "norm"),
    "missing tensor": Planted("llama", _missing, 3, "k", "has no model.layers.1.self_attn.k_proj.weight"),
    "tie that is none": Planted("llama", _no_tie, 5, "head", "lm_head.weight is said to be model.embed_tokens.weight"),
    "scale of scores": Planted("gemma2", _score_scale, 1, "attention"),
    "cap of scores": Planted("gemma2", _score_cap, 1, "attention"),
    "cap of logits": Planted("gemma2", _logit_cap, 5, "head"),
    "scale of branches": Planted("granite", _residual_scale, 1, "sum"),
    "norm of heads": Planted("qwen3", _head_norm, 3, "k_norm", "k_norm.weight differs"),
    "embedding": Planted("qwen2", _embedding, 0, "embedding", "embedding.weight differs"),
}
