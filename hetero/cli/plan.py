"""`hetero plan`: what would be run, how fast it should be, and what was not chosen."""

from __future__ import annotations

from typing import Annotated

import typer

from hetero.cli.arguments import JobFile, Settings


def plan(
    job_file: JobFile,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Print the chosen plan, its grid of actions and the predicted step, by what was measured or else by datasheets."""
    from hetero.cli.planned import as_data, print_planned
    from hetero.job.file.load import load_job, mistakes_located
    from hetero.job.planning.chips import identified
    from hetero.job.planning.links import Probed
    from hetero.job.planning.measuring import kept_profile, times
    from hetero.job.planning.plan_job import plan_job

    job = load_job(job_file, settings or ())
    with mistakes_located(job_file, settings or ()):
        job = identified(job)
        found = kept_profile(job)
        planned = plan_job(job, times(job, found), probed=Probed(found.links), profile=found)
    if as_json:
        typer.echo(as_data(job, planned))
    else:
        print_planned(job, planned)
