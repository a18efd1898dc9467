"""What crosses between processes is a word: a frozen dataclass of its name, never a dict that nobody has described."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from bridge.words.word import Answer, Order, Word, WordPart
from tests.architecture.tree import PACKAGES, ROOT, name_of, nodes, python_files

KEYS = {"do", "report"}
"""By which messages once were told apart."""
ROOMS = ("bridge/words", "hetero/words")
BASES = {"Word", "WordPart", "Answer", "Order", "EndpointOrder", "RankOrder", "RankNotice"}


def _keyed(path: Path) -> Iterator[int]:
    """Lines where a dict has such a key, or is asked for it."""
    if not re.search(rf"""["']({"|".join(KEYS)})["']""", path.read_text()):
        return
    for node in nodes(path):
        match node:
            case ast.Dict(keys=keys):
                keyed = keys
            case ast.Subscript(slice=ast.Constant() as key):
                keyed = [key]
            case ast.Call(func=ast.Attribute(attr="get" | "pop"), args=[ast.Constant() as key, *_]):
                keyed = [key]
            case _:
                continue
        if any(isinstance(key, ast.Constant) and key.value in KEYS for key in keyed):
            yield node.lineno


def test_no_dict_with_a_key_for_its_kind_crosses_a_process_boundary() -> None:
    found = [
        f"{name_of(path)}:{line}" for path in python_files(*PACKAGES, "benchmarks", "tests") for line in _keyed(path)
    ]
    assert not found


def _said() -> list[type[WordPart]]:
    kinds = []
    for path in python_files(*ROOMS):
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        kinds += [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, WordPart)]
    return sorted({kind for kind in kinds if kind.__name__ not in BASES}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", _said(), ids=lambda kind: kind.__name__)
def test_a_word_is_a_frozen_dataclass(kind: type[WordPart]) -> None:
    assert "__dataclass_params__" in vars(kind), f"{kind.__name__} is no dataclass of its own"
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.type for field in dataclasses.fields(kind))  # type: ignore[arg-type]


def _told_of(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _told_of(part)


def test_the_fields_of_words_have_types_that_are_checked_where_they_arrive() -> None:
    hints = [(kind.__name__, name, hint) for kind in _said() for name, hint in get_type_hints(kind).items()]
    assert len(hints) > 50
    assert not [(kind, name) for kind, name, hint in hints if Any in _told_of(hint)]


def test_every_order_stands_behind_its_answer() -> None:
    kinds = [kind for kind in _said() if issubclass(kind, Word)]
    orders = [kind for kind in kinds if issubclass(kind, Order)]
    answers = [order.answer for order in orders]
    assert set(answers) == {kind for kind in kinds if issubclass(kind, Answer)}
    assert len(set(answers)) == len(answers), "an answer tells which order it answers"


def _matches(path: Path) -> Iterator[ast.Match]:
    """Those over classes of words."""
    for node in nodes(path):
        if isinstance(node, ast.Match) and any(
            isinstance(part, ast.MatchClass) and ast.unparse(part.cls) in NAMES
            for case in node.cases
            for part in ast.walk(case.pattern)
        ):
            yield node


NAMES = {kind.__name__ for kind in _said()} | BASES


def test_whoever_tells_words_apart_says_what_becomes_of_all_others() -> None:
    found = [(path, match) for path in python_files("bridge", "hetero") for match in _matches(path)]
    assert len(found) > 5
    for path, match in found:
        last = match.cases[-1]
        refuses = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        assert refuses, f"{name_of(path)}:{match.lineno} passes over words in silence"
