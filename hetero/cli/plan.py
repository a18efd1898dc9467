"""`hetero plan`: what would be run, how fast it should be, what was not chosen, and what else could be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import JobFile, Settings, path_of
from hetero.cli.written import write

if TYPE_CHECKING:
    from balancer.plan.plan import Plan
    from hetero.job.job import Job
    from hetero.job.planning.plan_job import Planned


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
    explain: Annotated[
        bool, typer.Option("--explain", help="Also why this plan, what the next ones lose, and what binds them.")
    ] = False,
    worth: Annotated[bool, typer.Option("--worth", help="Also what each pool adds: one more search for each.")] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A.json B.json", help="Instead, two plans of this job beside each other."),
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if",
            metavar="KEY=VALUE[,VALUE]",
            help="Instead, how fast the job were with other values, such as train.global_batch=256,512.",
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.svg", parser=path_of("--plot"), help="Draw --what-if there, too."),
    ] = None,
) -> None:
    """Print the chosen plan, its grid of actions and the predicted step, by what was measured or else by datasheets."""
    from hetero.job.errors import JobError
    from hetero.job.file.load import load_job, mistakes_located

    if compare is not None and what_if:
        rule, remedy = "plans by hand are compared of one job, as it is", "leave one of both out"
        raise JobError("--what-if", " ".join(what_if), rule, remedy)
    if figure is not None and not what_if:
        raise JobError("--plot", str(figure), "draws what --what-if asks for", "add --what-if KEY=VALUE,VALUE")
    job = load_job(job_file, settings or ())
    with mistakes_located(job_file, settings or ()):
        if compare is not None:
            _compare(job, compare, as_json)
        elif what_if:
            _vary(job_file, job, settings or (), what_if, figure, as_json)
        else:
            _show(job, trace, as_json, explain, worth)


def _planned(job: Job, given: Plan | None = None) -> Planned:
    from hetero.job.planning.chips import identified
    from hetero.job.planning.links import Probed
    from hetero.job.planning.measuring import kept_profile, times
    from hetero.job.planning.plan_job import plan_job

    job = identified(job)
    found = kept_profile(job)
    return plan_job(job, times(job, found), given, probed=Probed(found.links), profile=found)


def _show(job: Job, trace: Path | None, as_json: bool, explain: bool, worth: bool) -> None:
    from rich.console import Console

    from hetero.cli.explained import print_explanation, print_worth
    from hetero.cli.planned import as_data, print_planned
    from hetero.cluster.options import named_pools
    from hetero.job.planning.worth import pools_worth
    from hetero.monitoring.predicted_trace import write_prediction

    planned = _planned(job)
    if trace is not None:
        titles = {pool.name: str(pool) for pool in named_pools(planned.job.pools).values()}
        write_prediction(planned.prediction, trace, titles)
    found = list(pools_worth(planned)) if worth else []
    if as_json:
        typer.echo(as_data(planned.job, planned, found))
        return
    print_planned(planned.job, planned)
    if explain:
        print_explanation(planned, Console())
    print_worth(found, Console())


def _compare(job: Job, files: tuple[str, str], as_json: bool) -> None:
    from hetero.cli.compared import as_data, print_comparison
    from hetero.job.file.plan_file import read_plan
    from hetero.job.planning.comparison import PlanComparison
    from hetero.paths import local

    first, second = (_planned(job, read_plan(local(name, "--compare"), "--compare")) for name in files)
    found = PlanComparison(first, second)
    if as_json:
        typer.echo(as_data(found))
    else:
        print_comparison(found, files)


def _vary(
    job_file: Path, job: Job, settings: list[str] | tuple[()], asked: list[str], figure: Path | None, as_json: bool
) -> None:
    from hetero.cli.varied import as_data, plot, print_variants
    from hetero.job.file.variants import variants

    now, found = _planned(job), list(variants(job_file, settings, asked, _planned))
    if figure is not None:
        write(figure, plot(now, found), "--plot")
    if as_json:
        typer.echo(as_data(now, found))
    else:
        print_variants(now, found)
