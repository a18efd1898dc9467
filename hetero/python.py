"""`hetero.train`: a run from a program, of a job file or of a job that is built in code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from balancer.plan.plan import Plan
from hetero.cluster.onray.chips import ask_joined
from hetero.job.file.load import load_job
from hetero.job.file.malformed import malformed
from hetero.job.job import Job
from hetero.job.planning.chips import ask_here, identified
from hetero.job.planning.plan_job import check_written_plan
from hetero.job.run.run_dir import new_run_dir
from hetero.monitoring.metrics_line import MetricsLine
from hetero.training import Record, RunSummary
from hetero.training import train as run


def train(
    job: Job | Mapping[str, Any] | Path | str,
    run_dir: Path | str | None = None,
    *,
    address: str | None = None,
    plan: Plan | None = None,
    resume: str | None = None,
    on_step: Callable[[MetricsLine], None] | None = None,
    on_event: Callable[[Record], None] | None = None,
) -> RunSummary:
    """Runs a job to its last step: a `Job`, its sections as plain data, or the path of a job file.

    The run is recorded in `run_dir`, a new folder below `runs` by default, as by the command; `address`, `plan` and
    `resume` are that command's options. `on_step` gets each line of metrics and `on_event` each event, in this thread,
    as soon as they are written; what they raise ends the run and is raised here. Raises JobError and the other errors
    of `hetero` that have key, value, rule and remedy. Belongs in the main thread, whose Ctrl-C ends the run.
    """
    checked = _checked(job)
    checked = identified(checked, ask_here if address is None else partial(ask_joined, address=address))
    folder = new_run_dir(checked.name) if run_dir is None else Path(run_dir)
    return run(checked, folder, address=address, plan=plan, resume=resume, on_record=on_step, on_event=on_event)


def _checked(job: Job | Mapping[str, Any] | Path | str) -> Job:
    if isinstance(job, (Path, str)):
        return load_job(job)
    if not isinstance(job, Job):
        try:
            job = Job.model_validate(job)
        except ValidationError as error:
            raise malformed(error, job) from None
    check_written_plan(job)
    return job
