"""Every type of model that a provider serves, against transformers: one row for each, and a page of them.

    python -m benchmarks.models [--json] [--only TYPE ...] [--cards docs/models.md]

transformers makes a tiny model with random values and writes its directory, float32. From that the same batch goes
through one process of ours, and through ranks that hold a plan of two emulated families: the first with tp 2, and the
cut in the middle of a layer. The ranks then save, the checkpoint is exported, and transformers loads the export.

`native_aligned` counts the types for which all of this holds: logits and every gradient are transformers' within
1e-5, in one process and in the mixed plan; every tensor of the export has the bits of the directory's; and
transformers' logits of the export are those of its own model. `transformers_aligned` counts those that run on
transformers' own modules, whose first family has tp 2 where the plan of the model allows it, and whose cut is between
layers. `rows` says why a type is none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.model_card import Card, card
from benchmarks.model_page import page
from hetero.models.errors import ModelError
from hetero.models.registry import NATIVE, TRANSFORMERS, family_names
from tests.distributed.fleet import POOLS, Standing
from tests.distributed.text import every_byte
from tests.tiny_provided import PROVIDED, REFUSED


def cards(kinds: Sequence[str]) -> list[Card]:
    """In this order. Ranks that one type has brought down are started again for the next."""
    found: list[Card] = []
    while len(found) < len(kinds):
        with _standing() as (fleet, folder):
            for kind in kinds[len(found) :]:
                found.append(_tried(kind, fleet, folder / kind))
                if found[-1].fault:
                    break
    return found


def _tried(kind: str, fleet: Standing, folder: Path) -> Card:
    try:
        return card(kind, fleet, folder)
    except ModelError as error:
        return Card(kind, TRANSFORMERS, refused=error.rule)
    except Exception as error:
        return Card(kind, fault=f"{type(error).__name__}: {error}".splitlines()[0])


@contextmanager
def _standing() -> Iterator[tuple[Standing, Path]]:
    pools = {name: POOLS[name] for name in ("nvidia", "ascend")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Standing(every_byte(folder), folder, pools).up() as fleet:
            yield fleet, folder


def _hush() -> None:
    """transformers' bars and warnings."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    known = (*family_names(), *PROVIDED, *REFUSED)
    parser.add_argument("--only", nargs="+", default=known, choices=known, metavar="TYPE")
    parser.add_argument("--cards", type=Path, help="write the page here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _hush()
    found = cards(options.only)
    if options.cards is not None:
        options.cards.write_text(page(found), encoding="utf-8")
    if not options.json:
        for one in found:
            print(f"{one.kind:<20} {one.provider:<13} {one.fault or one.refused or 'aligned'}")
    aligned = Counter(one.provider for one in found if not one.fault and not one.refused)
    figures = {
        "native_aligned": aligned[NATIVE],
        "native_types": sum(one.provider == NATIVE for one in found),
        "transformers_aligned": aligned[TRANSFORMERS],
        "transformers_types": sum(one.provider == TRANSFORMERS for one in found),
    }
    rows = [asdict(one) for one in found]
    print(json.dumps({"benchmark": "models", "figures": figures, "emulated": True, "void": None, "rows": rows}))


if __name__ == "__main__":
    main()
