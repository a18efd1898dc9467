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


def read_last_windows(config: Config, layers: int) -> tuple[int | None, tuple[str, ...]]:
    """The window, None where none is used, and of each layer what it reads: the last ones a window, as Qwen has it."""
    window = config.optional("sliding_window", 4096)
    window = window if config.flag("use_sliding_window", False) else None
    first = config.optional("max_window_layers", 28)
    default = [FULL if window is None or layer < first else SLIDING for layer in range(layers)]
    return window, read_layer_types(config, default)
