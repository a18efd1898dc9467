"""Rotary positions as config.json tells them: `rope_parameters`, or the `rope_theta` and `rope_scaling` of old.

Frequencies are what transformers makes of each type (`modeling_rope_utils`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hetero.layers.frequencies import Rotary, plain_frequencies
from hetero.models.config import Config
from hetero.models.hf_model import config_error

Told = Mapping[str, Any]
_EVERYWHERE = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})


def read_rotary(
    config: Config, head_dim: int, theta: float = 10000.0, partial: float = 1.0, interleaved: bool = False
) -> Rotary:
    """`theta` and `partial`, the part of a head that turns, are what the family has where config.json says nothing."""
    told = dict(config.optional("rope_scaling", None) or config.optional("rope_parameters", None) or {})
    config.optional("rope_parameters", None)
    theta, partial = config.number("rope_theta", theta), config.number("partial_rotary_factor", partial)
    original = config.optional("original_max_position_embeddings", None)
    if original is not None:
        told["original_max_position_embeddings"] = original
    return rotary_of(config, told, head_dim, theta, partial, interleaved)


def rotary_of(
    config: Config, told: Told, head_dim: int, theta: float, partial: float = 1.0, interleaved: bool = False
) -> Rotary:
    """Of one dictionary of `rope_parameters`. ModelError for a type or a key that is not known."""
    kind = told.get("rope_type") or told.get("type") or "default"
    if kind not in _TYPES:
        rule = f"{config.model_type} is supported with {', '.join(_TYPES)} alone"
        raise config_error("rope_parameters.rope_type", kind, rule, "use another model")
    make, keys = _TYPES[kind]
    for key in sorted(told.keys() - _EVERYWHERE - keys - {"original_max_position_embeddings"}):
        rule = f"is not known of the type {kind}, and nothing is ignored"
        raise config_error(f"rope_parameters.{key}", told[key], rule, "remove it if it changes nothing")
    base = float(told.get("rope_theta") or theta)
    dim = int(head_dim * float(told.get("partial_rotary_factor") or partial))
    longest = config.integer("max_position_embeddings", 2048)
    told = {"original_max_position_embeddings": longest, "longest": longest, **told}
    try:
        return replace(make(told, base, dim), interleaved=interleaved)
    except KeyError as missing:
        name = str(missing.args[0])
        raise config_error(f"rope_parameters.{name}", None, f"is what the type {kind} needs", "give it") from None
    except (TypeError, ValueError):
        rule = f"must have numbers, and as many factors as the {dim // 2} frequencies"
        raise config_error("rope_parameters", told, rule, "correct them") from None


def _default(told: Told, base: float, dim: int) -> Rotary:
    return Rotary.plain(base, dim)


def _linear(told: Told, base: float, dim: int) -> Rotary:
    return Rotary(tuple(one / told["factor"] for one in plain_frequencies(base, dim)))


def _llama3(told: Told, base: float, dim: int) -> Rotary:
    """Long waves are slowed by the factor, short ones stay, and those between are in between."""
    factor, low, high = told["factor"], told["low_freq_factor"], told["high_freq_factor"]
    found = []
    for frequency in plain_frequencies(base, dim):
        turns = told["original_max_position_embeddings"] * frequency / (2 * math.pi)
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        found.append((1 - kept) * frequency / factor + kept * frequency)
    return Rotary(tuple(found))


def _yarn(told: Told, base: float, dim: int) -> Rotary:
    """As llama3, by a ramp over the numbers of the frequencies, and with a factor of sine and cosine."""
    length = told["original_max_position_embeddings"]
    factor = told["factor"] or told["longest"] / length

    def number_of(turns: float) -> float:
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = number_of(told.get("beta_fast") or 32), number_of(told.get("beta_slow") or 1)
    if told.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    width = (last - first) or 0.001
    found = []
    for number, frequency in enumerate(plain_frequencies(base, dim)):
        slowed = min(1.0, max(0.0, (number - first) / width))
        found.append(slowed * frequency / factor + (1 - slowed) * frequency)
    return Rotary(tuple(found), _yarn_factor(told, factor))


def _yarn_factor(told: Told, factor: float) -> float:
    def scale(of: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * of * math.log(factor) + 1.0

    if told.get("attention_factor") is not None:
        return float(told["attention_factor"])
    if told.get("mscale") and told.get("mscale_all_dim"):
        return scale(told["mscale"]) / scale(told["mscale_all_dim"])
    return scale(1)


def _longrope(told: Told, base: float, dim: int) -> Rotary:
    """Each frequency has a factor of its own, and another in samples that are longer than the model was made for."""
    length, plain = told["original_max_position_embeddings"], plain_frequencies(base, dim)
    factor = told.get("factor") or told["longest"] / length
    scale = told.get("attention_factor")
    if scale is None:
        scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(length))
    short, long = (
        tuple(one / by for one, by in zip(plain, told[key], strict=True)) for key in ("short_factor", "long_factor")
    )
    return Rotary(short, float(scale), long=long, long_from=length)


_TYPES: Mapping[str, tuple[Callable[[Told, float, int], Rotary], frozenset[str]]] = {
    "default": (_default, frozenset()),
    "linear": (_linear, frozenset({"factor"})),
    "llama3": (_llama3, frozenset({"factor", "low_freq_factor", "high_freq_factor"})),
    "yarn": (_yarn, frozenset({"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
                               "truncate"})),
    "longrope": (_longrope, frozenset({"factor", "attention_factor", "short_factor", "long_factor"})),
}  # fmt: skip
"""`dynamic` is not among them: its frequencies are another's with every length of a sample."""
