"""The checkpoints of a run: where they go, what each keeps beside its tensors, and which of them is good."""

from __future__ import annotations

from pathlib import Path

from balancer.plan.plan import Plan
from hetero.checkpoint.manifest import RunState, last_good
from hetero.checkpoint.resume import ResumePoint, checkpoint_folder
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.control.instructions import CheckpointWritten
from hetero.data.prepared import Prepared
from hetero.engine.state.loss_scale import LossScale, told
from hetero.job.job import Job
from hetero.job.run.model import checkpoint_directory
from hetero.job.run.resuming import saved_text, skips_of
from hetero.monitoring.metrics_line import MetricsLine
from hetero.monitoring.notice import Notice


class RunCheckpoints:
    """`store` is None where none are made; `directory` makes each a directory of the model, None where they are none.

    What one keeps beside its tensors follows from the lines of metrics before it: `begin` with each plan, `record` each
    line, `expect` each save, whose pieces may be written steps later.
    """

    def __init__(self, job: Job, run_dir: Path, text: Prepared, point: ResumePoint | None) -> None:
        self._job, self._run_dir, self._text, self._point = job, run_dir, text, point
        self.store = (
            CheckpointStore(checkpoint_folder(run_dir, job.checkpoint.storage)) if job.checkpoint.every else None
        )
        self.directory = checkpoint_directory(job, run_dir)
        self._updates = point.state.updates if point else 0
        self._loss_scale = LossScale.of(job.train.loss_scale, point.state.scalars if point else {})
        self._skips = skips_of(point)
        self._states: dict[int, RunState] = {}
        self._plan: Plan

    def clean(self) -> None:
        """Removes what a save left that broke off; none may be under way."""
        if self.store is not None:
            self.store.clean()

    def begin(self, plan: Plan) -> None:
        """It is obeyed from the next step on."""
        self._plan = plan
        self._loss_scale = self._loss_scale.where(plan.precisions().values())

    def record(self, line: MetricsLine) -> list[Notice]:
        """What the journal should know of skipped updates, and of the loss scale, which the ranks change by the same
        rule."""
        self._updates += not line["skipped"]
        before, counted = self._loss_scale, line["counted_tokens"]
        self._loss_scale = before.after(bool(line["skipped"]), None if counted is None else int(counted))
        scaled = told(before, self._loss_scale, {"step": line["step"], "epoch": line["epoch"]})
        return [*scaled, *self._skips.record(line, self.last_good)]

    def expect(self, done: int) -> None:
        """The ranks save what they have after so many steps."""
        sequences = done * self._job.train.global_batch
        self._states[done] = RunState(
            consumed_sequences=sequences,
            consumed_tokens=sequences * self._job.data.seq_len,
            job_fingerprint=self._job.fingerprint(),
            job_facts=self._job.facts(),
            text=saved_text(self._text),
            plan=self._plan.model_dump(mode="json"),
            scalars={
                "updates": self._updates, "skips": self._skips.count, "skipping": self._skips.in_row,
                "last_good": self.last_good() if self._skips.count else None, **self._loss_scale.kept(),
            },
        )  # fmt: skip

    def commit(self, written: CheckpointWritten) -> None:
        """All pieces of one that was expected are written. Raises DamagedCheckpoint if they are not whole."""
        assert self.store is not None
        self.store.commit(written.step, self._states.pop(written.step), written.pieces, self.directory)
        self.store.prune(self._job.checkpoint.keep, self._job.checkpoint.keep_every)

    def last_good(self) -> str | None:
        """Where to go back to if updates are skipped, as `RUN_DIR@STEP`."""
        good = last_good(self.store.saved(), self._updates) if self.store else None
        if good is not None:
            return f"{self._run_dir.resolve()}@{good.step}"
        return self._point.last_good(self._updates) if self._point else None

    @property
    def last_words(self) -> str:
        """What should be known of a run that ends here; empty if nothing."""
        if not self._skips.in_row:
            return ""
        return f"the run ends in a row of skipped updates; the last good checkpoint is {self.last_good() or 'none'}"
