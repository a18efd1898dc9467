"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


def path_of(key: str) -> Callable[[str], Path]:
    """Reads the option or argument `key`, a path of this machine."""

    def path(text: str) -> Path:
        from hetero.paths import local

        return local(text, key)

    return path


def path_there(key: str) -> Callable[[str], str]:
    """Reads the option `key`, a path of another machine, which knows its own homes."""

    def path(text: str) -> str:
        from hetero.paths import spelt

        return spelt(text, key)

    return path


class Dtype(str, Enum):
    """What values are rounded to."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


JobFile = Annotated[
    Path,
    typer.Argument(metavar="JOB.yaml", parser=path_of("JOB.yaml"), help="The job file; docs/job.md describes it."),
]
RunOrJob = Annotated[
    str,
    typer.Argument(
        metavar="RUN_DIR|JOB", help="The folder that a training records itself in, or with --address a job's name."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override one key of the job file, such as train.steps=10."),
]
_SERVER = typer.Option(
    "--address", metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's job server, as http://HEAD:8265."
)
ServerAddress = Annotated[str, _SERVER]
MaybeServerAddress = Annotated[str | None, _SERVER]
