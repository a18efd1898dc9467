"""Which models run on transformers' own modules, by their configuration alone."""

from __future__ import annotations

from typing import Any

from hetero.models.hf_model import HfModel, config_error

_NOT_SHOWN = "its gradients have not been shown to be transformers' within 1e-5"
REFUSED = {
    "gemma4_text": _NOT_SHOWN,
    "gemma4_unified_text": _NOT_SHOWN,
    "phi4_multimodal": "it reads images and sound too, whose parts no text trains",
}
ELSEWHERE = "choose a model of another type"


def check_config(model: HfModel) -> None:
    """Raises ModelError where a type has no plan of how it is cut, or a value asks for what is not done."""
    from transformers import CONFIG_MAPPING

    kind = model.model_type
    if kind in REFUSED:
        raise config_error("model_type", kind, REFUSED[kind], ELSEWHERE)
    known: Any = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None  # noqa: SIM401 (it is no mapping of values)
    if not (getattr(known, "base_model_pp_plan", None) and getattr(known, "base_model_tp_plan", None)):
        rule = "transformers has no plan of how it is cut, and it is none of the native types"
        raise config_error("model_type", kind, rule, ELSEWHERE)
    _check_values(known(**{k: v for k, v in model.values.items() if k != "model_type"}).get_text_config())


def _check_values(config: Any) -> None:
    for key, value in config.to_dict().items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float) and value > 0:
            raise config_error(key, value, "dropout is not supported", "set it to 0.0")
    if getattr(config, "output_router_logits", False):
        rule = "transformers' loss for experts is of all layers and samples at once, so that a plan would change it"
        raise config_error("output_router_logits", True, rule, "set it to false")
    if getattr(config, "quantization_config", None):
        raise config_error("quantization_config", "...", "quantized weights cannot be trained", "use others")
