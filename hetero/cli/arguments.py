"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file; docs/job.md describes it.")]
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
Server = Annotated[str, _SERVER]
MaybeServer = Annotated[str | None, _SERVER]
