"""`hetero profile`: what the chips and links of a job really do, for those who plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import JobFile, Settings, path_of
from hetero.cli.written import write

if TYPE_CHECKING:
    from hetero.job.job import Job
    from hetero.job.planning.profile import Profile


def profile(
    job_file: JobFile,
    settings: Settings = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Join this Ray cluster, from one of its hosts.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure what was measured here before, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path_of("--out"), help="Also write that object there.")
    ] = None,
) -> None:
    """Measure the job's pools and links, for `hetero plan` and `hetero train`. Takes minutes at most, and is kept."""
    from hetero.asking import asking
    from hetero.cli.heard import heard
    from hetero.cli.profiled import as_data, print_profile
    from hetero.job.file.load import load_job, mistakes_located
    from hetero.job.planning.chips import identified

    job = load_job(job_file, settings or ())
    with mistakes_located(job_file, settings or ()):
        job = identified(job, asking(address, heard))
        found = _measured(job, address, again)
    data = as_data(job, found)
    if out is not None:
        write(out, data + "\n", "--out")
    if as_json:
        typer.echo(data)
    else:
        print_profile(job, found)


def _measured(job: Job, address: str | None, again: bool) -> Profile:
    from hetero.cluster.onray.standing import standing
    from hetero.cluster.options import fleet_of
    from hetero.job.checks import check_told
    from hetero.job.planning.measuring import profile as measure
    from hetero.job.run.spec import fleet_links

    def tell(note: str) -> None:
        typer.echo(f"measuring: {note}", err=True)

    check_told(job.unmasked())
    tell("starting the ranks")
    with standing(fleet_of(job.pools, fleet_links(job), local=address is None), address) as session:
        return measure(job, session, tell, again)
