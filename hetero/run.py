"""A job becomes a run, recorded in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import core_schema
from balancer.plan.plan import Plan
from hetero.checkpoint.resume import ResumePoint, checkpoint_place
from hetero.checkpoint.store import MANIFEST
from hetero.cluster.control.instructions import CheckpointWritten
from hetero.cluster.doctor import guard
from hetero.cluster.host.shared_files import ModelFolder
from hetero.cluster.onray.actors import ray_agents
from hetero.cluster.onray.metrics import RayMetrics
from hetero.cluster.onray.runtime import ray_runtime
from hetero.cluster.onray.shared_files import Folder, Needs
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.mixture import check_splits
from hetero.data.prepared import Prepared
from hetero.data.source import prepare
from hetero.data.written import check_apart
from hetero.errors import SPOKEN, is_user_mistake, unspoken
from hetero.interrupts import held, let_through, listening
from hetero.job.checks import check_told
from hetero.job.job import Job
from hetero.job.planning.measuring import measure
from hetero.job.planning.plan_job import plan_job
from hetero.job.run.checkpoints import RunCheckpoints
from hetero.job.run.epochs import RunEpochs, idle_facts
from hetero.job.run.facts import tracked_run
from hetero.job.run.model import checked_weights, keep_model
from hetero.job.run.refusal import ClaimedFolders, refusable
from hetero.job.run.resuming import check_resume, check_text, resume_notices
from hetero.job.run.spec import fleet_links
from hetero.masking import hidden, secret_values
from hetero.monitoring.environment import drivers_environment
from hetero.monitoring.journal import EVENTS, METRICS, EventJournal, Journal
from hetero.monitoring.metrics_line import MetricsLine
from hetero.monitoring.monitor import Monitor
from hetero.monitoring.notice import Notice
from hetero.monitoring.trace import Trace
from hetero.paths import scheme_of
from hetero.private import private_files
from hetero.words.notices import MemoryUsed
from hetero.words.step import HostStep

Record = dict[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """What a finished run leaves: `last` is its last line of metrics, None where no step was run."""

    run_dir: Path
    plan: Plan
    text: Prepared
    last: MetricsLine | None


@private_files()
def train(
    job: Job,
    run_dir: Path,
    *,
    address: str | None = None,
    plan: Plan | None = None,
    resume: str | None = None,
    on_record: Callable[[MetricsLine], None] | None = None,
    on_event: Callable[[Record], None] | None = None,
) -> RunSummary:
    """Runs the job to its last step, on a Ray of its own or on the cluster at `address`.

    Obeys `plan`, or the job's own, or the balancer's. `resume` ("RUN_DIR[@STEP]") goes on from a checkpoint of the same
    job, under whatever plan. Raises errors that explain themselves; every process has ended when it returns or raises.
    """
    check_told(job.unmasked())
    with listening(), held(), unspoken(secret_values(job.unmasked())):
        with let_through():
            point = ResumePoint.parse(resume) if resume else None
            if point is not None:
                check_resume(job, point)
            plan_job(job, given=plan)  # what cannot be planned by datasheet fails before anything is started
            model = checked_weights(job) if point is None else None
        storage = _storage(job, run_dir)
        for folder in filter(None, (run_dir, storage)):
            for source in job.data.sources:
                check_apart(source.source, folder)
        with refusable(run_dir, storage) as folders, ExitStack() as stack:
            monitor = Monitor(job.monitor, tracked_run(job, run_dir))
            stack.callback(monitor.close)
            (run_dir / "job.yaml").write_text(core_schema.dump(job.resolved()), encoding="utf-8")
            events = EventJournal(run_dir / EVENTS)  # by these no other run takes the folder for text
            stack.callback(events.close)
            keep_model(job, run_dir)
            text, not_compared = _prepared(job, run_dir, point)
            made = folders, text, point, model, events
            run = stack.enter_context(_Run(job, run_dir, *made, monitor, on_record, on_event))
            return _on_a_fleet(job, run, address, plan, not_compared)


def _prepared(job: Job, run_dir: Path, point: ResumePoint | None) -> tuple[Prepared, str]:
    """The text, and in words what of it could not be compared with that of the checkpoint."""
    with let_through():
        text = prepare(job.text(), run_dir / "data", room=job.model.resolve().vocab)
    check_splits(text.samples, text.weights, job.train.global_batch, job.eval.held_out_batches)
    return text, check_text(job, point, text) if point else ""


def _on_a_fleet(job: Job, run: _Run, address: str | None, plan: Plan | None, not_compared: str) -> RunSummary:
    """From nothing to a fleet that has done the run, and back."""
    with ExitStack() as stack:
        try:
            run.begin(not_compared)
            stack.enter_context(ray_runtime(address))
            if address is not None:  # a Ray of the run's own lets nobody in, and has nobody who asks it for metrics
                run.warn(*guard.warnings(guard.of_joined()))
                run.record_to.append(RayMetrics(tracked_run(job, run.run_dir)).record)
            stack.enter_context(run.watched())
            fleet = fleet_of(job.pools, fleet_links(job), local=address is None)
            agents = stack.enter_context(ray_agents(fleet, run.needs, run.heard))
            session = stack.enter_context(Session.start(fleet, agents, run.heard))
            run.prepared(agents.notes, agents.carries_checkpoints)
            return run.drive(session, plan)
        except KeyboardInterrupt:
            run.interrupted()
            raise
        except Exception as error:
            run.failed(error)
            raise


class _Run:
    """One run, on a fleet once that stands ready."""

    def __init__(
        self,
        job: Job,
        run_dir: Path,
        folders: ClaimedFolders,
        text: Prepared,
        point: ResumePoint | None,
        model: ModelFolder | None,
        events: EventJournal,
        monitor: Monitor,
        on_record: Callable[[MetricsLine], None] | None,
        on_event: Callable[[Record], None] | None,
    ) -> None:
        self._job, self.run_dir, self._text, self._point, self._events = job, run_dir, text, point, events
        self._model = model
        self._secrets = secret_values(job.unmasked())
        self._folders, self._monitor = folders, monitor
        self._on_event = on_event or _ignore
        self.record_to: list[Callable[[MetricsLine], None]] = [on_record] if on_record else []
        self._checkpoints = RunCheckpoints(job, run_dir, text, point)
        self._epochs: RunEpochs
        self._last: MetricsLine | None = None
        self._fleet_failed = False

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._folders.lost:
            with suppress(OSError):
                self._checkpoints.clean()  # of what was being saved when the run broke off

    def begin(self, not_compared: str) -> None:
        self._event("started", **drivers_environment())
        for owner in self._folders.taken_from:
            self._event("warning", note=f"{owner}, which has ended without a word: taken over")
        if self._point is not None:
            self._note([*resume_notices(self._job, self._point)])
        self.warn(self._text.note, not_compared)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What looks at the run is at work inside. It starts once Ray has, so that its processes do not count as Ray's,
        and has ended, or is left behind, before Ray ends."""
        self._note(self._monitor.start())
        try:
            yield
        finally:
            self._note(self._monitor.close())

    @property
    def needs(self) -> Needs:
        """What must be at hand on every host of a cluster."""
        folders = []
        if (store := self._checkpoints.store) is not None:
            folders.append(Folder("checkpoint.storage", store.root, carried=self._job.checkpoint.storage is None))
        if self._point is not None:
            store, step = self._point.store, self._point.step
            proof, carried = f"{store.folder(step).name}/{MANIFEST}", isinstance(store.root, Path)
            folders.append(Folder("--resume", store.root, proof, carried))
        return Needs(files=self._text.files, folders=tuple(folders), model=self._model)

    def prepared(self, notes: Sequence[str], carried: bool) -> None:
        """Told how hosts reach what they share. Checkpoints that are `carried` come in whole files."""
        if carried and self._checkpoints.directory is not None:
            self._checkpoints.directory = None
            notes = (*notes, "they hold the state alone; hetero checkpoint export makes directories of them")
        self.warn(*notes)

    def drive(self, session: Session, given: Plan | None) -> RunSummary:
        """Measures, plans and trains."""
        self._event("measuring")
        written = plan_job(self._job, given=given).plan if given or self._job.balance.pipelines else None
        measured = measure(self._job, session, written, self.warn)
        told = self._text, measured, self._checkpoints, self._event
        self._epochs = epochs = RunEpochs(self._job, self.run_dir, session, *told)
        with let_through():
            planned = epochs.plan_for(given)
        session.relink(fleet_links(self._job, measured.time_scale, measured.probed))
        self.warn(*planned.notes)
        facts: Record = {"time_scale": measured.time_scale, "link_ratio": planned.prediction.link_ratio}
        facts |= {"idle": idle_facts(planned), "calibrated": list(measured.rows)}
        facts |= {"rates": measured.profile.rates, "probed": list(measured.probed.rows)}
        self._event("planned", **facts)
        self._checkpoints.clean()
        resume = (self._point.store.root, self._point.step) if self._point else None
        epochs.begin(planned, by_hand=written is not None, resume=resume)
        self._train(session, epochs)
        self.warn(self._checkpoints.last_words)
        self._event("finished")
        return RunSummary(self.run_dir, epochs.plan, self._text, self._last)

    def _train(self, session: Session, epochs: RunEpochs) -> None:
        """Every step, under one plan after another."""
        steps, titles = self._job.train.steps, {pool.name: str(pool) for pool in session.fleet.pools}
        with Journal(self.run_dir / METRICS) as metrics, closing(Trace(self.run_dir / "trace.json", titles)) as trace:

            def on_report(step: int, hosts: Sequence[HostStep]) -> None:
                self._folders.check()
                for host in hosts:
                    trace.add(host)
                line = epochs.recorder.line(hosts)
                metrics.append(line)
                self._show(line)
                if epochs.spec.saves_at(step + 1):
                    self._checkpoints.expect(step + 1)
                epochs.hear(line)

            while (done := session.run(steps, on_report)) < steps:
                epochs.go_on(done)

    def _show(self, line: MetricsLine) -> None:
        """To all who follow the run."""
        self._last = line
        self._note(self._checkpoints.record(line))
        self._note(self._monitor.record(line))
        if "eval_loss" in line:
            self._event("validated", step=line["step"], epoch=line["epoch"], eval_loss=line["eval_loss"])
        for record in self.record_to:
            record(line)

    def interrupted(self) -> None:
        """Written down at once: whoever asked it to end may not wait until it has."""
        self._events.write("interrupted")

    def failed(self, error: Exception) -> None:
        """Of the driver itself, as when it loses its folder: the fleet's failures have told themselves, and a user's
        mistake is no run's end."""
        if self._fleet_failed or is_user_mistake(error):
            return
        with suppress(OSError):  # of a disk that is full
            cause = getattr(error, "rule", None) or f"{type(error).__name__}: {error}"
            self._event("failed", process="driver", cause=cause)

    def heard(self, notice: Notice | CheckpointWritten) -> None:
        """What the fleet has for the journal. That all pieces of a checkpoint are written is heard after the record of
        the step that it follows, at once or steps later; then it gets its manifest."""
        if isinstance(notice, CheckpointWritten):
            self._commit(notice)
        elif notice.kind == MemoryUsed.kind:
            facts = {"step": notice.step, "epoch": notice.epoch, "rank": notice.rank}
            self._note(self._epochs.memory.used(str(notice.pool), notice.data, facts))
        else:
            self._fleet_failed |= notice.kind == "failed"
            self._note([notice])

    def _commit(self, written: CheckpointWritten) -> None:
        self._folders.check(thoroughly=True)
        self._checkpoints.commit(written)
        self._event("saved", step=written.step, epoch=written.epoch, pieces=len(written.pieces))

    def warn(self, *notes: str) -> None:
        """Tells what the run goes on in spite of; empty notes are none."""
        for note in filter(None, notes):
            self._event("warning", note=note)

    def _note(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self._event(notice.kind, **notice.facts)

    def _event(self, kind: str, **facts: Any) -> None:
        said = {name: hidden(facts[name], self._secrets) for name in SPOKEN & facts.keys()}
        event = self._events.write(kind, **facts | said)
        self._monitor.event(event)
        self._on_event(event)


def _storage(job: Job, run_dir: Path) -> Path | None:
    """The folder outside the run's own that its checkpoints go to; a store is none."""
    storage = job.checkpoint.storage
    if job.checkpoint.every == 0 or storage is None or scheme_of(storage):
        return None
    return checkpoint_place(run_dir, storage)


def _ignore(_: Record) -> None:
    pass
