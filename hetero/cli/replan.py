"""`hetero replan`: give a run that goes on another plan, or the one before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backends.sizes import size_text
from hetero.cli.arguments import path_of

if TYPE_CHECKING:
    from hetero.job.run.replan_request import ReplanRequest

LOOK_S = 0.2


def replan(
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR", parser=path_of("RUN_DIR"), help="The folder of a run that goes on, on its own machine."
        ),
    ],
    plan: Annotated[
        Path | None,
        typer.Option(metavar="PLAN.json", parser=path_of("--plan"), help="What it is to obey from the next step on."),
    ] = None,
    back: Annotated[bool, typer.Option("--back", help="Undo the last change of the plan.")] = False,
) -> None:
    """Change the plan of a run between two steps; it goes on with what it has learnt. The plan then stays."""
    from hetero.job.file.plan_file import read_plan
    from hetero.job.run.replan_request import ReplanRequest, leave, withdraw

    _check(run_dir, plan, back)
    request = ReplanRequest(plan=read_plan(plan) if plan else None)
    leave(run_dir, request)
    try:
        answer = _answer(run_dir, request)
    except KeyboardInterrupt:
        taken_back = withdraw(run_dir, request)
        typer.echo("taken back" if taken_back else "the run has heard of it already; it is in its events", err=True)
        raise typer.Exit(1) from None
    told = answer["data"]
    typer.echo(
        f"obeys {run_dir / 'plan.json'} from step {answer['step']} on, as epoch {told['to_epoch']}: "
        f"{size_text(told['sent_bytes'])} moved, it stood for {told['pause_s']:.2f} s"
    )


def _check(run_dir: Path, plan: Path | None, back: bool) -> None:
    """Raises MonitorError or JobError for what nobody would answer."""
    from hetero.job.errors import JobError
    from hetero.job.run.claim import held_by
    from hetero.monitoring.follow import follow

    if (plan is None) != back:
        rule = "one of --plan and --back says which plan is wanted"
        raise JobError("--plan", str(plan), rule, "give a plan, or --back for the one before")
    follow(run_dir)
    if held_by(run_dir) is None:
        remedy = "start it with `hetero train`, or resume it there, with --plan"
        raise JobError("RUN_DIR", str(run_dir), "no run goes on there", remedy)


def _answer(run_dir: Path, request: ReplanRequest) -> dict[str, Any]:
    """The run's, with one of its next steps. Raises JobError where it refuses, or ends first."""
    import time

    from hetero.errors import PARTS
    from hetero.job.errors import JobError
    from hetero.job.run.claim import held_by
    from hetero.job.run.replan_request import withdraw
    from hetero.monitoring.follow import follow

    follower = follow(run_dir)
    while True:
        goes_on = held_by(run_dir) is not None
        follower.poll()
        for event in reversed(follower.events):
            told = event.get("data") or {}
            if event["kind"] in ("rebalanced", "replan_refused") and told.get("request") == request.name:
                if event["kind"] == "replan_refused":
                    raise JobError(*(str(told.get(part, "")) for part in PARTS))
                return event
        if not goes_on:
            withdraw(run_dir, request)
            raise JobError("RUN_DIR", str(run_dir), "the run ended before it answered", "resume it, with --plan")
        time.sleep(LOOK_S)
