"""How ranks may cut the layers of a model, by transformers' own plan (`base_model_tp_plan`)."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from hetero.models.provided.skeleton import Skeleton, parameters_of
from hetero.models.provided.told import Style

WHOLE = {"colwise_gather_output", "colwise_rep", "rowwise_split_input", "rowwise_rep", "replicate", "local_params",
         "replicated_with_grad_allreduce"}  # fmt: skip
"""Styles of what every rank has whole here: what is gathered at once, or is none of the plan's own."""
MODULES: dict[str, Style] = {
    "colwise": "inward", "rowwise": "outward", "packed_colwise": "packed", "moe_tp_experts": "experts",
    "mla_kv_a_proj": "latent",
}  # fmt: skip


class Cuts:
    """Of the modules of each layer, by their names within it. `unknown` says why nothing is cut, if so."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.unknown = ""
        self.rope = int(getattr(skeleton.config, "qk_rope_head_dim", 0) or 0)
        self._styles: list[dict[str, Style]] = []
        self._tensors: list[dict[str, tuple[int | None, int | None]]] = []
        plan = skeleton.causal.config.base_model_tp_plan or {}
        for number, layer in enumerate(skeleton.layers):
            self._read(f"{skeleton.layers_name}.*.", f"layers.{number}.", layer, plan)
        if self.unknown or not any(self._styles):
            self.unknown = self.unknown or "transformers' plan of the model cuts none of its layers"
            self._styles = [{} for _ in self._styles]
            self._tensors = [{} for _ in self._tensors]

    def styles(self, layer: int) -> dict[str, Style]:
        return self._styles[layer]

    def cut(self, layer: int, tensor: str) -> int | None:
        """The dimension that ranks cut."""
        return self._tensors[layer].get(tensor, (None, None))[1]

    def packed(self, layer: int, tensor: str) -> int | None:
        """The dimension along which two halves lie end to end."""
        return self._tensors[layer].get(tensor, (None, None))[0]

    def _read(self, begin: str, told: str, layer: nn.Module, plan: dict[str, str]) -> None:
        styles: dict[str, Style] = {}
        tensors: dict[str, tuple[int | None, int | None]] = {}
        for path, module in layer.named_modules():
            style = plan.get(begin + _generic(path)) if path else None
            if style is None or style in WHOLE:
                continue
            if style not in MODULES or _fault(style, module):
                self.unknown = self.unknown or f"its plan has {style} of {_generic(path)}, which is not known here"
                continue
            styles[path] = MODULES[style]
            if style == "colwise":
                tensors |= {f"{path}.weight": (None, 0), f"{path}.bias": (None, 0)}
            elif style == "rowwise":
                tensors[f"{path}.weight"] = None, 1
            elif style == "packed_colwise":
                tensors |= {f"{path}.weight": (0, 0), f"{path}.bias": (0, 0)}
        for path, _, _, tensor in parameters_of(layer):
            style = plan.get(begin + _generic(path))
            if style == "colwise":
                tensors[path] = None, max(tensor.dim() - 2, 0)
            elif style == "rowwise":
                tensors[path] = None, tensor.dim() - 1
            elif style == "packed_colwise" and tensor.dim() == 3:
                tensors[path] = 1, 1
            elif style is not None and style not in WHOLE:
                self.unknown = self.unknown or f"its plan has {style} of {_generic(path)}, which is not known here"
        self._styles.append(styles)
        self._tensors.append(tensors)


def _fault(style: str, module: Any) -> bool:
    if style == "moe_tp_experts":
        plain = {"gate_up_proj", "down_proj"} >= {name for name, _ in module.named_parameters()}
        alike = getattr(module, "is_concatenated", True) and not getattr(module, "is_transposed", False)
        return not (plain and alike)
    return type(module) is not nn.Linear


def _generic(path: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path)
