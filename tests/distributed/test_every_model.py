"""Every type of model: transformers' directory in, a mixed plan of two families, the same directory out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.model_card import card
from hetero.models.registry import family_names
from tests.distributed.fleet import Standing
from tests.tiny_provided import PROVIDED

COVERING = {
    "cohere2", "deepseek_v3", "gemma3_text", "glm4", "gpt2", "gpt_neox", "gpt_oss", "mixtral", "olmo2", "phi3",
    "qwen2_moe", "qwen3",
}  # fmt: skip
"""Have every part and every kind of name between them."""
PROVIDED_COVERING = {"dots1"}
"""On transformers' own modules: norms of heads and experts in two halves, a latent product."""
SHOWN = COVERING | PROVIDED_COVERING
KINDS = (*family_names(), *PROVIDED)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in SHOWN else pytest.mark.exhaustive) for kind in KINDS]
)
def test_is_transformers_own_in_and_out(kind: str, fleet: Standing, tmp_path: Path) -> None:
    assert card(kind, fleet, tmp_path).fault == ""
