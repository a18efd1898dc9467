"""`hetero.train`: the one way from a job to a run, of the command and of Python."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from balancer.plan.plan import Plan
from hetero.asking import asking
from hetero.callbacks import Callbacks, RunStart
from hetero.interrupts import held, listening, sigmask
from hetero.job.file.load import JobSource, load_job, mistakes_located
from hetero.job.file.plan_file import read_plan
from hetero.job.job import Job
from hetero.job.planning.chips import identified
from hetero.job.run.live_page import dashboard
from hetero.job.run.refusal import refuse_used
from hetero.paths import local, spelt

if TYPE_CHECKING:
    from hetero.run import RunSummary

AnyPath = str | os.PathLike[str]


def train(
    job: JobSource,
    *,
    set: Iterable[str] = (),
    plan: Plan | AnyPath | None = None,
    run_dir: AnyPath | None = None,
    resume: AnyPath | None = None,
    address: str | None = None,
    callbacks: Iterable[object] = (),
) -> RunSummary:
    """Trains the job, a file's path, its data or a `Job`, to its last step; the rest is as `hetero train` has it.

    `callbacks` are objects with any of `on_start(RunStart)`, `on_step(metrics)`, `on_event(event)` and
    `on_end(RunSummary)`; what one raises ends the run as a failure, and is raised here. So are errors that explain
    themselves (`hetero.errors.render`). Every process has ended when it returns or raises."""
    follow, settings = Callbacks(callbacks), tuple(set)
    wanted = load_job(job, settings)
    folder = new_run_dir(wanted.name) if run_dir is None else local(os.fspath(run_dir), "--run-dir")
    refuse_used(folder)
    path = None if plan is None or isinstance(plan, Plan) else local(os.fspath(plan), "--plan")
    point = None if resume is None else spelt(os.fspath(resume), "--resume")
    with listening(), mistakes_located(job, settings, path):
        wanted = identified(wanted, asking(address, partial(follow.call, "on_event")))
        given = plan if isinstance(plan, Plan) else read_plan(path) if path else None
        return _train(wanted, folder, given, point, address, follow)


def _train(
    job: Job, folder: Path, plan: Plan | None, resume: str | None, address: str | None, follow: Callbacks
) -> RunSummary:
    with sigmask(signal.SIG_BLOCK, signal.SIGTERM):  # in the threads of libraries: Ray wants it in no other than this
        from hetero.run import train as run

    with held(), dashboard(folder, job.monitor.port) as page:
        follow.call("on_start", RunStart(job, folder, page))
        on_step, on_event = partial(follow.call, "on_step"), partial(follow.call, "on_event")
        summary = run(job, folder, address=address, plan=plan, resume=resume, on_record=on_step, on_event=on_event)
    follow.call("on_end", summary)
    return summary


def new_run_dir(name: str) -> Path:
    """Two runs that start within one second have two."""
    plain = name.replace("/", "-").encode()[:100].decode(errors="ignore")  # a file's name has room for 255 bytes
    return Path("runs") / f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
