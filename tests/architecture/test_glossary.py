"""One word, one thing: no two classes have one name, and a word of the glossary leads to the class of its name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.architecture.markdown import glossary
from tests.architecture.tree import PACKAGES, name_of, nodes, parsed, python_files


def _classes() -> dict[str, list[str]]:
    """The files that define a class of each name."""
    found = defaultdict(list)
    for path in python_files(*PACKAGES):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(name_of(path))
    return found


CLASSES = _classes()


def test_no_two_classes_have_one_name() -> None:
    assert len(CLASSES) > 500
    assert not {name: files for name, files in CLASSES.items() if len(files) > 1}


def _aliases() -> Iterator[tuple[str, str]]:
    """Names of types that are no classes, and the files that say what they stand for."""
    for path in python_files(*PACKAGES):
        for node in parsed(path).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and re.fullmatch("[A-Z][a-z]+[A-Za-z]*", target.id):
                yield target.id, name_of(path)


def test_no_alias_has_the_name_of_a_class() -> None:
    aliases = list(_aliases())
    assert len(aliases) > 50
    assert not [(name, file, CLASSES[name]) for name, file in aliases if name in CLASSES]


@pytest.mark.parametrize(("word", "text"), glossary().items())
def test_a_word_of_the_glossary_names_one_class_at_most_and_leads_to_it(word: str, text: str) -> None:
    name = "".join(part.capitalize() for part in re.split("[ -]", word))
    files = CLASSES.get(name, []) + CLASSES.get(f"_{name}", [])
    linked = re.findall(r"\]\(\.\./([^)]+)\)", text)
    assert linked
    assert len(files) <= 1, f"{word} names {files}"
    assert set(files) <= set(linked), f"{word} is {files}, and leads to {linked}"
