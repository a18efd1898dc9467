"""Which layers read a window of what is before them, as config.json tells it."""

from __future__ import annotations

from collections.abc import Sequence

from hetero.models.config import Config
from hetero.models.hf_model import config_error

FULL, SLIDING = "full_attention", "sliding_attention"


def read_layer_types(config: Config, default: Sequence[str]) -> tuple[str, ...]:
    """Of each layer; `default` is what transformers makes of the other keys, and has as many."""
    types = config.optional("layer_types", None)
    types = default if types is None else types
    if len(types) != len(default) or not set(types) <= {FULL, SLIDING}:
        rule = f"names {FULL} or {SLIDING} for each of the {len(default)} layers"
        raise config_error("layer_types", types, rule, "use another model")
    return tuple(types)


def every(number: int, layers: int) -> list[str]:
    """Each so many layers are full, and those between read a window."""
    return [SLIDING if (layer + 1) % number else FULL for layer in range(layers)]
