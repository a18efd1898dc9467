"""Rotary positions as config.json tells them: `rope_parameters`, or the `rope_theta` and `rope_scaling` of old."""

from __future__ import annotations

from hetero.models.config import Config
from hetero.models.hf_model import config_error


def read_theta(config: Config, head_dim: int, theta: float = 10000.0) -> float:
    """The base of the frequencies; ModelError for any other type of positions."""
    told = config.optional("rope_parameters", None) or config.optional("rope_scaling", None) or {}
    base = told.get("rope_theta") or config.number("rope_theta", theta)
    config.optional("rope_theta", None), config.optional("rope_scaling", None)
    kind = told.get("rope_type", told.get("type", "default"))
    if kind != "default":
        raise config_error("rope_type", kind, f"{config.model_type} is supported with default alone", "use another")
    return float(base)
