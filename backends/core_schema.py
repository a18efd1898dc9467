"""YAML as a person reads it: the core schema of YAML 1.2. Every YAML of the program is read and written by this file.

PyYAML by itself follows YAML 1.1, to which 0100 is 64, 1:30 is 90, `no` is false, and 1e-3 is a text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN = (
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<"), ["<"]),  # known, to be refused
)
"""What a scalar without quotes may be besides a text, with the letters that it may begin with."""


class AmbiguousNumber(ValueError):
    """A number that readers disagree about; `rule` says why."""

    rule = "a number that begins with 0 is octal to some readers and decimal to others"

    def __init__(self, text: str, line: int) -> None:
        super().__init__(f"line {line}: {text}: {self.rule}")


class CoreLoader(yaml.SafeLoader):
    """Makes plain data; numbers, true, false and null as YAML 1.2 has them. A number that begins with a zero is an
    AmbiguousNumber."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (as PyYAML has it)


class CoreDumper(yaml.SafeDumper):
    """Quotes each text that one or the other version of YAML would take for something else."""


for _name, _pattern, _first in _PLAIN:
    _whole = re.compile(rf"^(?:{_pattern.pattern})$")
    CoreLoader.add_implicit_resolver(_TAG + _name, _whole, _first)
    CoreDumper.add_implicit_resolver(_TAG + _name, _whole, _first)


def _int(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if _LEADING_ZERO.fullmatch(text):
        raise AmbiguousNumber(text, node.start_mark.line + 1)
    if not _INT.fullmatch(text):
        raise ValueError("no whole number")
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(loader: CoreLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    if not _FLOAT.fullmatch(text):
        raise ValueError("no number")
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


CoreLoader.add_constructor(_TAG + "int", _int)
CoreLoader.add_constructor(_TAG + "float", _float)


def load(text: str | bytes) -> Any:
    """The data of one document. Raises yaml.YAMLError where it is no YAML, ValueError for a value that is none."""
    return yaml.load(text, CoreLoader)


def dump(data: Any, *, allow_unicode: bool = False) -> str:
    """Plain data as a document; `load` and any other reader of YAML give the same data back."""
    return yaml.dump(data, Dumper=CoreDumper, sort_keys=False, allow_unicode=allow_unicode)
