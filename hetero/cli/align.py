"""`hetero align`: whether a model computes what another way of computing it does, and where it first does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import Dtype, Settings, path_of, path_there
from hetero.cli.written import write

if TYPE_CHECKING:
    from hetero.align.aligned import AlignOptions
    from hetero.align.alignment import Alignment


def align(
    model: Annotated[
        str,
        typer.Option(
            metavar="DIR|RUN_DIR[@STEP]",
            parser=path_there("--model"),
            help="A model's directory, or a run's checkpoint.",
        ),
    ],
    against: Annotated[
        str,
        typer.Option(
            metavar="transformers|DIR|RUN_DIR[@STEP]|PLAN.json",
            parser=path_there("--against"),
            help="Its own class there, another model of ours, or the ranks of a plan, emulated here.",
        ),
    ] = "transformers",
    job_file: Annotated[
        Path | None,
        typer.Option(
            "--job",
            metavar="JOB.yaml",
            parser=path_of("--job"),
            help="Take what this job trains on, not made-up tokens. A plan is of it, or of the job.yaml beside it.",
        ),
    ] = None,
    settings: Settings = None,
    dtype: Annotated[Dtype, typer.Option(help="What the model is computed in.")] = Dtype.float32,
    reference_dtype: Annotated[
        Dtype | None, typer.Option(help="And the reference; default the same, or what a plan says.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="The most that a relative error may be; default by the coarser type.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Default 2, or a micro-batch of the job; a plan takes its whole batch.")
    ] = None,
    seq_len: Annotated[int | None, typer.Option(min=1, help="Of made-up samples; default 64.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of made-up tokens.")] = 0,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path_of("--html"), help="Write a page of it, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Compare a model unit by unit with a reference, and leave with 1 if they differ, naming the first operator."""
    from hetero.align.aligned import AlignOptions
    from hetero.align.as_data import as_data
    from hetero.align.as_page import page

    narrow = reference_dtype and reference_dtype.value
    options = AlignOptions(dtype.value, narrow, tolerance, samples, seq_len, seed, of_job=job_file is not None)
    found = _aligned(model, against, options, job_file, settings or [])
    if html is not None:
        write(html, page(found), "--html")
    if as_json:
        typer.echo(json.dumps(as_data(found), indent=2))
    else:
        _print(found)
        if html is not None:
            typer.echo(f"wrote {html}")
    if found.faults:
        raise typer.Exit(1)


def _aligned(model: str, against: str, options: AlignOptions, job_file: Path | None, settings: list[str]) -> Alignment:
    from hetero.align.aligned import aligned, is_plan
    from hetero.job.errors import JobError
    from hetero.job.file.load import JOB_FILE, load_job, mistakes_located, recorded_job
    from hetero.paths import local

    if settings and job_file is None:
        raise JobError("--set", " ".join(settings), "changes a job file, and none is named", "add --job JOB.yaml")
    plan = local(against, "--against") if is_plan(against) else None
    beside = plan.parent / JOB_FILE if plan and (plan.parent / JOB_FILE).is_file() else None
    if (place := job_file or beside) is None:
        return aligned(model, against, options)
    job = load_job(job_file, settings) if job_file else recorded_job(place.parent)
    with mistakes_located(place, settings, plan):
        return aligned(model, against, options, job)


def _print(found: Alignment) -> None:
    from rich.console import Console

    from hetero.align.as_table import operators, table, verdict
    from hetero.terminal import word

    console = Console(highlight=False)
    if found.units:
        console.print(table(found))
    if (faults := found.faults) and found.units and found.units[faults[0].unit].operators:
        console.print(operators(found, faults[0].unit))
    typer.echo(word(verdict(found), 1000))
    for fault in faults[1:]:
        typer.echo(word(f"  and in {fault}", 1000))
