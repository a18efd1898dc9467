"""The reference of the job file: whole, described, and the page in docs/ is the one that is generated."""

from __future__ import annotations

import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hetero.job.job import Job
from hetero.job.reference import BUILT_IN_NAMES, options, reference
from tests.architecture.tree import ROOT

OPTIONS = {option.key: option for option in options()}


def _keys(kind: Any) -> Iterator[str]:
    """The names of all keys, read from the models' classes, where the reference reads their schema."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield name
            yield from _keys(field.annotation)
    for argument in typing.get_args(kind):
        yield from _keys(argument)


def test_the_page_is_the_generated_one() -> None:
    remedy = "python -m hetero.job.reference > docs/job-reference.md"
    assert (ROOT / "docs" / "job-reference.md").read_text() == reference(), remedy


@pytest.mark.slow
def test_the_command_prints_the_page() -> None:
    command = [sys.executable, "-m", "hetero.job.reference"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed == reference()


def test_every_key_is_there() -> None:
    assert {key.rpartition(".")[2].removesuffix("[]") for key in OPTIONS} == set(_keys(Job))


def test_every_option_is_described() -> None:
    assert not [key for key, option in OPTIONS.items() if not option.meaning], "give its Field a description"


def test_defaults_are_yaml_of_the_right_type() -> None:
    """YAML takes 1e-8 for a text, for example."""
    for option in OPTIONS.values():
        if option.kind.startswith(("number", "integer")) and option.default != "required":
            assert not isinstance(yaml.safe_load(option.default.strip("`")), str), option


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("train.steps", "integer > 0", "required"),
        ("train.precision", "`float32` or `bfloat16` or `float16`", "`float32`"),
        ("train.optimizer.eps", "number > 0", "`1.0e-08`"),
        ("train.optimizer.betas", "[number, number]", "`[0.9, 0.95]`"),
        ("pools", "map of sections", "required"),
        ("pools.NAME.tp", "`auto` or integer > 0", "`auto`"),
        ("pools.NAME.select.resources", "map of numbers > 0", "`{}`"),
        ("pools.NAME.emulate", "section or `null`", "`null`"),
        ("balance.pipelines[].stages[].units", "list of [integer, integer]", "required"),
        ("balance.pipelines[].stages[].chips", "list of integers or `null`", "`null`"),
    ],
)
def test_types_and_defaults(key: str, kind: str, default: str) -> None:
    assert (OPTIONS[key].kind, OPTIONS[key].default) == (kind, default)


@pytest.mark.parametrize("key", BUILT_IN_NAMES)
def test_names_are_those_of_a_key(key: str) -> None:
    assert "text" in OPTIONS[key].kind
    assert list(BUILT_IN_NAMES[key]())
