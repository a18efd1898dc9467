"""The page of all types of models: what they come to against transformers, and what of each is refused."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from importlib import import_module
from typing import Any
from unittest.mock import patch

from benchmarks.model_card import LIMIT, Card
from hetero.models import families
from hetero.models.config import Config
from hetero.models.hf_model import HfModel
from tests.tiny_models import tiny

Choices = dict[str, tuple[Any, ...]]
"""The values that a key of config.json may have, by key."""

HEAD = f"""# Models

Written by `python -m benchmarks.models --cards docs/models.md`, which proves each row; do not edit it by hand.

These types of Hugging Face models (`model_type` in config.json) are `native`: made of our own parts, so that plans may
cut them within layers and every strategy has them. No type runs on transformers' own modules yet, and every other one
is refused.

Of each type transformers makes a tiny model with random values in float32, and writes its directory. Columns:

- *tensors, parameters*: of that directory.
- *round trip*: read by ranks, saved by them, exported: whether every tensor has the bits that it had. transformers
  loads the export, and computes the same logits of it, bit by bit.
- *logits, gradients*: one process of ours against transformers.
- *mixed plan*: gradients of two emulated families, the first with `tp: 2` and the cut in the middle of a layer where
  attention and MLP follow one another, against transformers; and against one process of ours.

Each figure is the largest relative difference: of logits over the largest of them, of gradients over the tensors, by
norm, each against the larger of its own and a ten-thousandth of the whole. A row that has one above {LIMIT:g} says so.
"""

COLUMNS = (
    "type", "provider", "tensors", "parameters", "round trip", "logits", "gradients", "mixed plan",
    "that / one process",
)  # fmt: skip

REFUSED = """## What is refused

Of these keys of config.json a type takes the values named and refuses others. A key that it does not know is refused,
unless it is null or changes nothing that is computed (labels, tokens, files, generation); so are types of rotary
positions that it does not know. Dropout is not supported: that of `gpt2`, which transformers writes in every
config.json, is left out.

All take {} alone.
"""
TAKES = "type", "takes alone"


def page(cards: Sequence[Card]) -> str:
    choices = {card.kind: choices_of(card.kind) for card in cards}
    common = {
        key: known
        for key, known in next(iter(choices.values())).items()
        if all(one.get(key) == known for one in choices.values())
    }
    rows = [(f"`{kind}`", _told(found, common.keys()) or "all that is known") for kind, found in choices.items()]
    return "\n".join([HEAD, _table(COLUMNS, map(_row, cards)), REFUSED.format(_told(common)), _table(TAKES, rows)])


def choices_of(kind: str) -> Choices:
    """As its family reads them, of the tiny model and of one that says nothing."""
    found: Choices = {}
    read = Config.choice

    def choice(config: Config, key: str, default: Any, known: Sequence[Any]) -> Any:
        found[key] = tuple(known)
        return read(config, key, default, known)

    family = import_module(f"{families.__name__}.{kind}")
    with patch.object(Config, "choice", choice):
        for model in (HfModel.of({"model_type": kind}), tiny(kind)):
            family.describe(model)
    return dict(sorted(found.items()))


def _row(card: Card) -> tuple[str, ...]:
    if card.fault:
        return f"`{card.kind}`", "native", f"FAILS: {card.fault}", *[""] * 6
    trip = "bit-equal" if card.bit_equal else "differs"
    figures = (card.logits, card.gradients, card.mixed, card.mixed_vs_one)
    sizes = str(card.tensors), f"{card.parameters:,}"
    return f"`{card.kind}`", "native", *sizes, trip, *(f"{one:.0e}" for one in figures)


def _told(choices: Choices, without: Container[str] = ()) -> str:
    return ", ".join(
        f"`{key}` {' or '.join(map(_value, known))}" for key, known in choices.items() if key not in without
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))
