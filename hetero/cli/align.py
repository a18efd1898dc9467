"""`hetero align`: whether a model computes what another way of computing it does, and where it first does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import Dtype, path_of, path_there
from hetero.cli.written import write

if TYPE_CHECKING:
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
            metavar="transformers|DIR|RUN_DIR[@STEP]",
            parser=path_there("--against"),
            help="Its own class there, or another model of ours.",
        ),
    ] = "transformers",
    dtype: Annotated[Dtype, typer.Option(help="What the model is computed in.")] = Dtype.float32,
    reference_dtype: Annotated[Dtype | None, typer.Option(help="And the reference; default the same.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="The most that a relative error may be; default by the coarser type.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of made-up tokens.")] = 2,
    seq_len: Annotated[int, typer.Option(min=1, help="Of each sample.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the tokens.")] = 0,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path_of("--html"), help="Write a page of it, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Compare a model unit by unit with a reference, and leave with 1 if they differ, naming the first operator."""
    from hetero.align.as_data import as_data
    from hetero.align.as_page import page
    from hetero.align.reference import aligned

    narrow = reference_dtype and reference_dtype.value
    found = aligned(model, against, dtype.value, narrow, tolerance, samples, seq_len, seed)
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
