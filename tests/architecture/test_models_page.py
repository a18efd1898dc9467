"""docs/models.md has a row for each type of model that there is, and no row of one that fails."""

from __future__ import annotations

import re

from benchmarks.model_page import choices_of
from hetero.models.registry import family_names
from tests.architecture.tree import ROOT
from tests.tiny_provided import ALONE, PROVIDED
from tests.tiny_provided import REFUSED as KNOWN

PAGE, REFUSED = (ROOT / "docs" / "models.md").read_text().split("## What is refused")
REFUSED, NOT_SERVED = REFUSED.split("These types have both plans")
WRITE = "run python -m benchmarks.models --cards docs/models.md"


def test_every_type_is_there_and_aligned() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \| native \|", PAGE, re.MULTILINE)) == family_names(), WRITE
    assert "FAILS" not in PAGE


def test_every_type_with_both_plans_is_there() -> None:
    served = re.findall(r"^\| `(\w+)` \| transformers \|", PAGE, re.MULTILINE)
    assert tuple(served) == tuple(PROVIDED), WRITE
    assert tuple(re.findall(r"^\| `(\w+)` \|", NOT_SERVED, re.MULTILINE)) == tuple(KNOWN), WRITE


def test_types_that_take_one_document_alone_are_there() -> None:
    _, alone = PAGE.split("These take samples of one document alone")
    found = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", alone, re.MULTILINE))
    assert found.keys() == ALONE.keys(), WRITE
    assert all(why in found[kind] for kind, why in ALONE.items()), WRITE


def test_what_is_refused_is_as_families_read_it() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", REFUSED, re.MULTILINE))
    common = set(re.findall(r"`(\w+)`", REFUSED.split("All take ")[1].splitlines()[0]))
    assert tuple(told) == family_names(), WRITE
    for kind, text in told.items():
        assert set(re.findall(r"`(\w+)`", text)) == choices_of(kind).keys() - common, WRITE
