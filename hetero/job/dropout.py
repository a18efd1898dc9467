"""Dropout that a model's directory speaks of, and no run applies."""

from __future__ import annotations

from hetero.models.hf_model import HfModel
from hetero.models.options import ModelOptions

KEYS = "attn_pdrop", "embd_pdrop", "resid_pdrop"
"""Of GPT-2, whose directories all have them; other types are refused with dropout."""


def dropout_notes(model: ModelOptions) -> list[str]:
    """In words, what a person may not have meant."""
    described = model.resolve()
    said = {key: described.values.get(key) for key in KEYS} if isinstance(described, HfModel) else {}
    if not any(said.values()):
        return []
    named = ", ".join(f"{key} {value}" for key, value in said.items() if value)
    return [f"the model trains without the dropout of its config.json ({named}): none is supported"]
