"""The epochs of a run: what its driver has as long as one plan is obeyed, and the way to the next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from balancer.plan.plan import Plan
from hetero.checkpoint.address import Location
from hetero.cluster.session import Session
from hetero.data.prepared import Prepared
from hetero.job.job import Job
from hetero.job.planning.measuring import Measurements
from hetero.job.planning.plan_job import Planned, plan_job
from hetero.job.planning.silence import check_silence
from hetero.job.run.checkpoints import RunCheckpoints
from hetero.job.run.facts import run_facts
from hetero.job.run.kept_plans import keep_plan
from hetero.job.run.live_balance import LiveBalance
from hetero.job.run.proposals import Proposals, Tell
from hetero.job.run.spec import run_spec
from hetero.monitoring.memory import MemoryCheck
from hetero.monitoring.metrics_line import MetricsLine
from hetero.monitoring.record import Recorder
from hetero.words.spec import RunSpec


class RunEpochs:
    """Each plan is told to the ranks of `session`, kept in `run_dir`, and named to the journal by `tell`.

    `begin` with the first one, `hear` each line, and `go_on` wherever the session stands before the last step. `plan`,
    `spec`, `memory` and `recorder` are those of the epoch that goes on.
    """

    def __init__(
        self,
        job: Job,
        run_dir: Path,
        session: Session,
        text: Prepared,
        measured: Measurements,
        checkpoints: RunCheckpoints,
        tell: Tell,
    ) -> None:
        self._job, self._run_dir, self._session, self._text = job, run_dir, session, text
        self._measured, self._checkpoints, self._tell = measured, checkpoints, tell
        self._proposals: Proposals
        self.plan: Plan
        self.spec: RunSpec
        self.memory: MemoryCheck
        self.recorder: Recorder

    def plan_for(self, given: Plan | None) -> Planned:
        """`given` or, where that is None, the job's or the balancer's, by what was measured. Raises what explains
        itself."""
        measured, usable = self._measured, self._session.usable_bytes
        planned = plan_job(self._job, measured.times, given, measured.probed, usable, measured.profile)
        check_silence(self._job, planned.prediction, measured.time_scale)
        return planned

    def begin(self, planned: Planned, by_hand: bool, resume: tuple[Location, int] | None) -> None:
        """The first epoch; `resume` is the folder and step that it begins from. Whether the balancer looks after the
        run may depend on who wrote the plan."""
        steps, asked = self._job.train.steps, planned.prediction.scenario.problem
        live = LiveBalance(asked, steps, self._measured.time_scale) if self._job.balance.follows(by_hand) else None
        self._proposals = Proposals(self._run_dir, steps, self.plan_for, live, self._tell)
        self._obey(planned, self._spec_of(planned.plan, resume=resume))
        keep_plan(self._run_dir, planned.plan)
        self._session.configure(self.spec)
        self._proposals.begin(planned, self.spec.start)
        self.recorder = Recorder(run_facts(self._job, planned, self._measured.time_scale, time.time()))

    def hear(self, line: MetricsLine) -> None:
        """Has the epoch end where another plan is wanted."""
        if self._proposals.hear(line):
            self._session.hold()

    def go_on(self, done: int) -> None:
        """The ranks stand after `done` steps: they go on under the next plan, with what they hold."""
        began, before, proposal = time.perf_counter(), self.plan, self._proposals.next
        assert proposal is not None, "nobody else holds a run"
        plan = proposal.planned.plan.model_copy(update={"epoch": before.epoch + 1})
        planned, spec = replace(proposal.planned, plan=plan), self._spec_of(plan, live=done)
        answers = self._session.configure(spec)
        self._obey(planned, spec)
        keep_plan(self._run_dir, plan, before)
        facts = run_facts(self._job, planned, self._measured.time_scale, self.recorder.facts.started)
        self.recorder = Recorder(facts, self.recorder.useful_s)
        pause_s = time.perf_counter() - began
        self._tell(
            "rebalanced",
            step=done,
            epoch=plan.epoch,
            by=proposal.by,
            from_epoch=before.epoch,
            to_epoch=plan.epoch,
            back=proposal.back,
            sent_bytes=sum(sum(answer.moved.sent_bytes.values()) for answer in answers if answer.moved),
            pause_s=pause_s,
            idle=idle_facts(planned),
            **proposal.facts,
        )
        self._proposals.begin(planned, done, pause_s)

    def _obey(self, planned: Planned, spec: RunSpec) -> None:
        """From the next step on."""
        self.plan, self.spec, self.memory = planned.plan, spec, MemoryCheck(planned.memory_bytes)
        self._checkpoints.begin(planned.plan)

    def _spec_of(self, plan: Plan, resume: tuple[Location, int] | None = None, live: int | None = None) -> RunSpec:
        store, directory = self._checkpoints.store, self._checkpoints.directory is not None
        told = self._job, self._session.fleet, plan, self._text, self._measured.time_scale
        where = store.root if store else None
        return run_spec(*told, checkpoints=where, resume=resume, live=live, directory=directory)


def idle_facts(planned: Planned) -> Sequence[dict[str, Any]]:
    """The chips that a plan leaves idle, for the journal."""
    return [asdict(idle) for idle in planned.idle]
