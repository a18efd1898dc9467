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
from hetero.models.registry import NATIVE
from tests.tiny_models import tiny

Choices = dict[str, tuple[Any, ...]]
"""The values that a key of config.json may have, by key."""

HEAD = f"""# Models

Written by `python -m benchmarks.models --cards docs/models.md`, which proves each row; do not edit it by hand.

Types of Hugging Face models (`model_type` in config.json) have one of two providers; `hetero plan` and `hetero doctor`
say which one serves a model.

- `native`: made of our own parts, so that plans may cut them within layers and every strategy has them.
- `transformers`: transformers' own modules, of types whose configuration has both plans of how they are cut
  (`base_model_pp_plan`, `base_model_tp_plan`). Plans cut them between layers. Ranks split a layer where all styles of
  its plan are known here (else the row has tp 1, and `hetero plan` the reason); what the plan gathers at once is whole
  on each rank. The loss is our own head's, which makes logits in slices, with the scale, cap or bias that the type has;
  of a type whose logits are made in another way (`inkling_text`) each rank makes all at once. Samples of several
  documents (`data.pack`) are for types whose layers are told where documents end, and keep to it; others, such as those
  with a recurrent state, are refused with the reason. `recompute: selective` makes norms and activations again, `full`
  the layer; other strategies within a stage are refused, and so are dropout, quantized weights and losses for experts
  (`output_router_logits`). Ranks need transformers in their interpreter, the same release in all pools.

Of each type transformers makes a tiny model with random values in float32, and writes its directory. Columns:

- *tensors, parameters*: of that directory.
- *round trip*: read by ranks, saved by them, exported: whether every tensor has the bits that it had. transformers
  loads the export, and computes the same logits of it, bit by bit.
- *logits, gradients*: one process of ours against transformers.
- *tp, mixed plan*: gradients of two emulated families, the first with that `tp`, and the cut in the middle of a layer
  where attention and MLP follow one another, or between two layers on transformers' own modules, against transformers;
  and against one process of ours.

Each figure is the largest relative difference: of logits over the largest of them, of gradients over the tensors, by
norm, each against the larger of its own and a ten-thousandth of the whole. A row that has one above {LIMIT:g} says so.
"""

COLUMNS = (
    "type", "provider", "tensors", "parameters", "round trip", "logits", "gradients", "tp", "mixed plan",
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
WHY = "type", "why"


ALONE = """These take samples of one document alone (`data.pack: false`).
"""
NOT_SERVED = """These types have both plans, and are refused all the same.
"""


def page(cards: Sequence[Card]) -> str:
    native = [card.kind for card in cards if card.provider == NATIVE]
    choices = {kind: choices_of(kind) for kind in native}
    common = {
        key: known
        for key, known in next(iter(choices.values())).items()
        if all(one.get(key) == known for one in choices.values())
    }
    rows = [(f"`{kind}`", _told(found, common.keys()) or "all that is known") for kind, found in choices.items()]
    served = [_row(card) for card in cards if not card.refused]
    not_served = [(f"`{card.kind}`", card.refused) for card in cards if card.refused]
    alone = [(f"`{card.kind}`", card.alone.partition(", and ")[2]) for card in cards if card.alone]
    parts = HEAD, _table(COLUMNS, served), ALONE, _table(WHY, alone), REFUSED.format(_told(common)), _table(TAKES, rows)
    return "\n".join([*parts, NOT_SERVED, _table(WHY, not_served)])


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
        return f"`{card.kind}`", card.provider, f"FAILS: {card.fault}", *[""] * 7
    trip = "bit-equal" if card.bit_equal else "differs"
    alone, mixed = (
        [f"{one:.0e}" for one in figures]
        for figures in ((card.logits, card.gradients), (card.mixed, card.mixed_vs_one))
    )
    sizes = str(card.tensors), f"{card.parameters:,}"
    return f"`{card.kind}`", card.provider, *sizes, trip, *alone, str(card.tp), *mixed


def _told(choices: Choices, without: Container[str] = ()) -> str:
    return ", ".join(
        f"`{key}` {' or '.join(map(_value, known))}" for key, known in choices.items() if key not in without
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))
