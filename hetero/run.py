"""A job becomes a run, recorded in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from backends import core_schema
from balancer.plan.plan import Plan
from hetero.checkpoint.address import Location
from hetero.checkpoint.manifest import RunState, last_good
from hetero.checkpoint.resume import ResumePoint, checkpoint_folder, checkpoint_place
from hetero.checkpoint.store import MANIFEST, CheckpointStore
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
from hetero.engine.state.loss_scale import LossScale, told
from hetero.errors import SPOKEN, is_user_mistake, unspoken
from hetero.interrupts import held, let_through, listening
from hetero.job.checks import check_told
from hetero.job.job import Job
from hetero.job.planning.measuring import Measurements, measure
from hetero.job.planning.plan_job import Planned, plan_job
from hetero.job.planning.problem import UsableBytes
from hetero.job.planning.silence import check_silence
from hetero.job.run.facts import run_facts, tracked_run
from hetero.job.run.kept_plans import keep_plan
from hetero.job.run.live_balance import LiveBalance
from hetero.job.run.model import checked_weights, checkpoint_directory, keep_model
from hetero.job.run.proposals import Proposals
from hetero.job.run.refusal import ClaimedFolders, refusable
from hetero.job.run.resuming import check_resume, check_text, resume_notices, saved_text, skips_of
from hetero.job.run.spec import fleet_links, run_spec
from hetero.masking import hidden, secret_values
from hetero.monitoring.environment import drivers_environment
from hetero.monitoring.journal import EVENTS, METRICS, EventJournal, Journal
from hetero.monitoring.memory import MemoryCheck
from hetero.monitoring.metrics_line import MetricsLine
from hetero.monitoring.monitor import Monitor
from hetero.monitoring.notice import Notice
from hetero.monitoring.record import Recorder
from hetero.monitoring.trace import Trace
from hetero.paths import scheme_of
from hetero.private import private_files
from hetero.words.notices import MemoryUsed
from hetero.words.spec import RunSpec
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
        self._store = _store(job, run_dir)
        self._directory = checkpoint_directory(job, run_dir)
        self._updates = point.state.updates if point else 0
        self._loss_scale = LossScale.of(job.train.loss_scale, point.state.scalars if point else {})
        self._skips = skips_of(point)
        self._last: MetricsLine | None = None
        self._states: dict[int, RunState] = {}
        self._plan: Plan
        self._memory: MemoryCheck
        self._recorder: Recorder
        self._spec: RunSpec
        self._fleet_failed = False

    def begin(self, not_compared: str) -> None:
        self._event("started", **drivers_environment())
        for owner in self._folders.taken_from:
            self._event("warning", note=f"{owner}, which has ended without a word: taken over")
        if self._point is not None:
            self._note([*resume_notices(self._job, self._point)])
        self.warn(self._text.note, not_compared)

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None and not self._folders.lost:
            with suppress(OSError):
                self._store.clean()  # of what was being saved when the run broke off

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
        if self._store is not None:
            carried = self._job.checkpoint.storage is None
            folders.append(Folder("checkpoint.storage", self._store.root, carried=carried))
        if self._point is not None:
            store, step = self._point.store, self._point.step
            proof, carried = f"{store.folder(step).name}/{MANIFEST}", isinstance(store.root, Path)
            folders.append(Folder("--resume", store.root, proof, carried))
        return Needs(files=self._text.files, folders=tuple(folders), model=self._model)

    def prepared(self, notes: Sequence[str], carried: bool) -> None:
        """Told how hosts reach what they share. Checkpoints that are `carried` come in whole files."""
        if carried and self._directory is not None:
            self._directory = None
            notes = (*notes, "they hold the state alone; hetero checkpoint export makes directories of them")
        self.warn(*notes)

    def drive(self, session: Session, given: Plan | None) -> RunSummary:
        """Measures, plans and trains."""
        self._event("measuring")
        written = plan_job(self._job, given=given).plan if given or self._job.balance.pipelines else None
        measured = measure(self._job, session, written, lambda note: self._event("warning", note=note))
        with let_through():
            planned = self._planned(measured, session.usable_bytes, given)
        session.relink(fleet_links(self._job, measured.time_scale, measured.probed))
        facts: Record = {"time_scale": measured.time_scale, "link_ratio": planned.prediction.link_ratio}
        self.warn(*planned.notes)
        facts["idle"] = [asdict(idle) for idle in planned.idle]
        found: Record = {"rates": measured.profile.rates, "probed": list(measured.probed.rows)}
        self._event("planned", **facts, calibrated=list(measured.rows), **found)
        changes = self._changes(measured, planned, session.usable_bytes, by_hand=written is not None)
        self._obey(planned, self._first_spec(session, planned, measured.time_scale))
        keep_plan(self.run_dir, planned.plan)
        session.configure(self._spec)
        changes.begin(planned, self._spec.start)
        titles = {pool.name: str(pool) for pool in session.fleet.pools}
        with Journal(self.run_dir / METRICS) as metrics:
            trace = Trace(self.run_dir / "trace.json", titles)
            try:
                self._recorder = Recorder(run_facts(self._job, planned, measured.time_scale, time.time()))

                def on_report(step: int, hosts: Sequence[HostStep]) -> None:
                    line = self._record(metrics, trace, hosts)
                    if self._spec.saves_at(step + 1):
                        self._states[step + 1] = self._state(step + 1)
                    if changes.hear(line):
                        session.hold()

                while (done := session.run(self._job.train.steps, on_report)) < self._job.train.steps:
                    self._change(session, changes, done)
            finally:
                trace.close()
        if self._skips.in_row:
            note = (
                f"the run ends in a row of skipped updates; the last good checkpoint is {self._last_good() or 'none'}"
            )
            self._event("warning", note=note)
        self._event("finished")
        return RunSummary(self.run_dir, self._plan, self._text, self._last)

    def _planned(self, measured: Measurements, usable: UsableBytes, given: Plan | None) -> Planned:
        planned = plan_job(self._job, measured.times, given, measured.probed, usable, measured.profile)
        check_silence(self._job, planned.prediction, measured.time_scale)
        return planned

    def _changes(self, measured: Measurements, first: Planned, usable: UsableBytes, by_hand: bool) -> Proposals:
        plan_for = partial(self._planned, measured, usable)
        steps, asked = self._job.train.steps, first.prediction.scenario.problem
        live = LiveBalance(asked, steps, measured.time_scale) if self._job.balance.follows(by_hand) else None
        return Proposals(self.run_dir, steps, plan_for, live, self._event)

    def _obey(self, planned: Planned, spec: RunSpec) -> None:
        """From the next step on."""
        self._plan, self._spec, self._memory = planned.plan, spec, MemoryCheck(planned.memory_bytes)
        self._loss_scale = self._loss_scale.where(planned.plan.precisions().values())

    def _change(self, session: Session, changes: Proposals, done: int) -> None:
        """The ranks stand after `done` steps: they go on under the next plan, with what they hold."""
        began, before, proposal = time.perf_counter(), self._plan, changes.next
        assert proposal is not None, "nobody else holds a run"
        plan = proposal.planned.plan.model_copy(update={"epoch": before.epoch + 1})
        planned = replace(proposal.planned, plan=plan)
        scale, facts = self._spec.time_scale, self._recorder.facts
        spec = self._epoch_spec(session, plan, scale, live=done)
        moved = [answer.moved for answer in session.configure(spec) if answer.moved]
        self._obey(planned, spec)
        keep_plan(self.run_dir, plan, before)
        self._recorder = Recorder(run_facts(self._job, planned, scale, facts.started), self._recorder.useful_s)
        told: Record = {"by": proposal.by, "from_epoch": before.epoch, "to_epoch": plan.epoch, "back": proposal.back}
        pause_s = time.perf_counter() - began
        told |= {"sent_bytes": sum(sum(one.sent_bytes.values()) for one in moved), "pause_s": pause_s}
        told["idle"] = [asdict(idle) for idle in planned.idle]
        self._event("rebalanced", step=done, epoch=plan.epoch, **told, **proposal.facts)
        changes.begin(planned, done, pause_s)

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
            self._note(self._memory.used(str(notice.pool), notice.data, facts))
        else:
            self._fleet_failed |= notice.kind == "failed"
            self._note([notice])

    def warn(self, *notes: str) -> None:
        """Tells what the run goes on in spite of; empty notes are none."""
        for note in filter(None, notes):
            self._event("warning", note=note)

    def _first_spec(self, session: Session, planned: Planned, time_scale: float) -> RunSpec:
        if self._store is not None:
            self._store.clean()
        resume = (self._point.store.root, self._point.step) if self._point else None
        return self._epoch_spec(session, planned.plan, time_scale, resume=resume)

    def _epoch_spec(
        self,
        session: Session,
        plan: Plan,
        time_scale: float,
        resume: tuple[Location, int] | None = None,
        live: int | None = None,
    ) -> RunSpec:
        checkpoints, directory = self._store.root if self._store else None, self._directory is not None
        told = self._job, session.fleet, plan, self._text, time_scale
        return run_spec(*told, checkpoints=checkpoints, resume=resume, live=live, directory=directory)

    def _record(self, metrics: Journal, trace: Trace, hosts: Sequence[HostStep]) -> MetricsLine:
        self._folders.check()
        for host in hosts:
            trace.add(host)
        line = self._recorder.line(hosts)
        metrics.append(line)
        self._updates += not line["skipped"]
        self._last = line
        self._note(self._scaled(line))
        self._note([*self._skips.record(line, self._last_good), *self._monitor.record(line)])
        if "eval_loss" in line:
            self._event("validated", step=line["step"], epoch=line["epoch"], eval_loss=line["eval_loss"])
        for record in self.record_to:
            record(line)
        return line

    def _scaled(self, line: MetricsLine) -> list[Notice]:
        """Follows the loss scale, which the ranks change by the same rule."""
        before = self._loss_scale
        counted = line["counted_tokens"]
        self._loss_scale = before.after(bool(line["skipped"]), None if counted is None else int(counted))
        return told(before, self._loss_scale, {"step": line["step"], "epoch": line["epoch"]})

    def _state(self, done: int) -> RunState:
        """What a checkpoint of the steps done by now keeps beside its tensors."""
        sequences = done * self._job.train.global_batch
        return RunState(
            consumed_sequences=sequences,
            consumed_tokens=sequences * self._job.data.seq_len,
            job_fingerprint=self._job.fingerprint(),
            job_facts=self._job.facts(),
            text=saved_text(self._text),
            plan=self._plan.model_dump(mode="json"),
            scalars={
                "updates": self._updates, "skips": self._skips.count, "skipping": self._skips.in_row,
                "last_good": self._last_good() if self._skips.count else None, **self._loss_scale.kept(),
            },
        )  # fmt: skip

    def _commit(self, written: CheckpointWritten) -> None:
        assert self._store is not None
        self._folders.check(thoroughly=True)
        self._store.commit(written.step, self._states.pop(written.step), written.pieces, self._directory)
        self._store.prune(self._job.checkpoint.keep, self._job.checkpoint.keep_every)
        self._event("saved", step=written.step, epoch=written.epoch, pieces=len(written.pieces))

    def _last_good(self) -> str | None:
        """Where to go back to if updates are skipped, as `RUN_DIR@STEP`."""
        good = last_good(self._store.saved(), self._updates) if self._store else None
        if good is not None:
            return f"{self.run_dir.resolve()}@{good.step}"
        return self._point.last_good(self._updates) if self._point else None

    def _note(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self._event(notice.kind, **notice.facts)

    def _event(self, kind: str, **facts: Any) -> None:
        said = {name: hidden(facts[name], self._secrets) for name in SPOKEN & facts.keys()}
        event = self._events.write(kind, **facts | said)
        self._monitor.event(event)
        self._on_event(event)


def _store(job: Job, run_dir: Path) -> CheckpointStore | None:
    if job.checkpoint.every == 0:
        return None
    return CheckpointStore(checkpoint_folder(run_dir, job.checkpoint.storage))


def _storage(job: Job, run_dir: Path) -> Path | None:
    """The folder outside the run's own that its checkpoints go to; a store is none."""
    storage = job.checkpoint.storage
    if job.checkpoint.every == 0 or storage is None or scheme_of(storage):
        return None
    return checkpoint_place(run_dir, storage)


def _ignore(_: Record) -> None:
    pass
