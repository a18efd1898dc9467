"""`hetero plan`: what would be run, how fast it should be, and what was not chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetero.cli.arguments import JobFile, Settings, path_of


def plan(
    job_file: JobFile,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=path_of("--trace"), help="Write the predicted step in the form of trace.json there."
        ),
    ] = None,
) -> None:
    """Print the chosen plan, its grid of actions and the predicted step, by the chips' datasheets."""
    from hetero.cli.planned import as_data, print_planned
    from hetero.cluster.options import named_pools
    from hetero.job.file.load import load_job, mistakes_located
    from hetero.job.planning.chips import identified
    from hetero.job.planning.plan_job import plan_job
    from hetero.monitoring.predicted_trace import write_prediction

    job = load_job(job_file, settings or ())
    with mistakes_located(job_file, settings or ()):
        job = identified(job)
        planned = plan_job(job)
    if trace is not None:
        titles = {pool.name: str(pool) for pool in named_pools(job.pools).values()}
        write_prediction(planned.prediction, trace, titles)
    if as_json:
        typer.echo(as_data(job, planned))
    else:
        print_planned(job, planned)
