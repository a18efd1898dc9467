"""Command lines in documents and configs, read by the programs that they are for."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

import typer

from hetero.cli.app import app


def ray(command: str) -> dict[str, Any]:
    """The options of a `ray` command, as Ray itself reads them."""
    from ray.scripts.scripts import cli

    ray, name, *words = shlex.split(command)
    assert ray == "ray"
    return dict(cli.commands[name].make_context(f"ray {name}", words).params)


def ray_start(command: str) -> dict[str, Any]:
    """The options of the `ray start` in a line of commands."""
    words = shlex.split(command)
    begin = words.index("ray")
    assert words[begin : begin + 2] == ["ray", "start"]
    return ray(shlex.join(words[begin:]))


@cache
def program() -> Any:
    """`hetero`, with its commands."""
    return typer.main.get_command(app)


def hetero(command: str) -> dict[str, Any]:
    """The options of a `hetero` command, as it reads them itself."""
    name, *words = shlex.split(command)
    assert name == "hetero"
    group: Any = program()
    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]
    return dict(group.make_context("hetero", words).params)
