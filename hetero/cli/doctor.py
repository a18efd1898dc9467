"""`hetero doctor`: what is on this host, what is missing, how to get it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hetero.cli.arguments import Settings, path_of
from hetero.cli.written import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hetero.cluster.doctor.finding import Finding
    from hetero.cluster.doctor.machine import Machine
    from hetero.job.job import Job

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}
PLAIN_WIDTH = 160


def doctor(
    job_file: Annotated[
        Path | None,
        typer.Argument(metavar="[JOB.yaml]", parser=path_of("JOB.yaml"), help="Also check what this job needs."),
    ] = None,
    settings: Settings = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", envvar="RAY_API_SERVER_ADDRESS",
            help="Also ask this cluster: HOST:PORT from one of its hosts, http://HEAD:8265 from anywhere.",
        ),
    ] = None,
    run_dir: Annotated[
        Path, typer.Option(metavar="DIR", parser=path_of("--run-dir"), help="Where runs are to be recorded.")
    ] = Path("runs"),
    links: Annotated[
        bool, typer.Option("--links", help="Start the job's hosts and measure the links between its pools.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=path_of("--report"),
            help="Also write all that is known of this host, secrets masked, to send to who can help.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Look at chips, versions, limits, disk and network of this host. Leaves with 2 if anything blocks a run."""
    from hetero.cluster.doctor.finding import blocking
    from hetero.cluster.doctor.machine import measure
    from hetero.job.file.load import load_job

    if links and job_file is None:
        raise typer.BadParameter("it measures the links of a job: name its file", param_hint="--links")
    job = load_job(job_file, settings or []) if job_file else None
    machine = measure(run_dir)
    findings, job = _findings(machine, job, address, run_dir)
    blocks = blocking(findings)
    probed = _probe(job, address) if links and job and not blocks else []
    if report is not None:
        _write_report(report, machine, findings, probed)
    if as_json:
        facts = {"findings": [one.as_data() for one in findings], "blocks": blocks}
        typer.echo(json.dumps(facts | ({"links": probed} if links else {}), indent=2))
    else:
        _print(findings)
        _print_links(probed)
    if blocks:
        raise typer.Exit(2)


def _write_report(path: Path, machine: Machine, findings: Sequence[Finding], probed: Sequence[dict[str, Any]]) -> None:
    from hetero.cluster.doctor.report import report

    write(path, json.dumps(report(machine, findings, probed, os.environ), indent=2) + "\n", "--report")


def _findings(
    machine: Machine, job: Job | None, address: str | None, run_dir: Path
) -> tuple[list[Finding], Job | None]:
    """What was found, and the job with the names of its chips."""
    from hetero.asking import asking
    from hetero.cli.heard import heard
    from hetero.cluster.doctor.checks import examine
    from hetero.cluster.doctor.ray_cluster import ask, not_asked, told_of
    from hetero.job.doctor import cache, examine_job, name_chips, taken

    findings = [*examine(machine), cache(), *taken(run_dir)]
    cluster, nodes = ask(address) if address else ([not_asked()], None)
    findings += [*cluster, *told_of(os.environ)]
    if job is not None and (nodes is not None or address is None):
        job, told = name_chips(job, None if address and "://" in address else asking(address, heard))
        findings += [*told, *examine_job(job, machine, run_dir, nodes)]
    return findings, job


def _probe(job: Job, address: str | None) -> list[dict[str, Any]]:
    from hetero.cluster.doctor.links import probe
    from hetero.cluster.options import fleet_of
    from hetero.job.checks import check_told
    from hetero.job.run.spec import fleet_links

    check_told(job.unmasked())
    return probe(fleet_of(job.pools, fleet_links(job), local=address is None), address)


def _print_links(probed: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not probed:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("from", "to", "Gbit/s", "round trip ms", "CPU s/GB", "streams"):
        table.add_column(column, justify="left" if column in ("from", "to") else "right")
    for one in probed:
        figures = one["bytes_per_s"] * 8 / 1e9, (one["rtt_s"] or 0.0) * 1e3, one["cpu_s_per_gb"]
        numbers = *(f"{figure:.2f}" for figure in figures), str(one["streams"])
        table.add_row(Text(one["source"]), Text(one["target"]), *numbers)
    console = Console()
    console.print(
        "\nlinks, as they are and not as emulation would pace them; CPU of the sending endpoint", soft_wrap=True
    )
    console.print(table)


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "found", "wanted"):
        table.add_column(column, overflow="fold")
    for one in findings:
        table.add_row(Text(one.level, STYLES[one.level]), *map(Text, (one.check, one.value, one.rule)))
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table)
    wrong = [one for one in findings if one.level != "ok"]
    for one in wrong:
        console.print(f"\n{one.level}: {one.check}: {one.remedy}", markup=False, highlight=False, soft_wrap=True)
    if not wrong:
        console.print("\nnothing stands in the way of a run")
