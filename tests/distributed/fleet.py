"""Ranks that stand ready: three emulated families on this machine, handed one plan after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backends.options import EmulateOptions
from balancer.completion.completion import complete
from balancer.cost.topology import LinkSpec, Topology
from balancer.plan.plan import Plan
from balancer.problem import Problem
from bridge.options import BridgeOptions
from hetero.align.captured import captured_gradients
from hetero.checkpoint.hf_directory import HfDirectory
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.control.instructions import CheckpointWritten
from hetero.cluster.fleet import FleetLink, FleetSpec, Hosting, Programs
from hetero.cluster.host.agent import Agents, LocalAgents
from hetero.cluster.session import Session
from hetero.data.source import Prepared
from hetero.engine.state.loss_scale import LossScale
from hetero.models.as_hf import as_hf
from hetero.models.description import ModelDescription
from hetero.models.registry import architecture
from hetero.monitoring.links import total_bytes
from hetero.monitoring.notice import Notice
from hetero.words.options import EvalOptions, TrainOptions
from hetero.words.orders import Moved
from hetero.words.pool import Pool
from hetero.words.spec import Capture, RunSpec
from hetero.words.step import HostStep, StepTotals

ROOT = Path(__file__).parents[2]
SEQ_LEN = 16
NO_VALIDATION = EvalOptions()
PLAIN_LINKS = BridgeOptions()
NO_VARIABLES: Mapping[str, Mapping[str, str]] = {}
NO_PACE = 1e-9
"""A time scale at which an emulated chip never sleeps."""

POOLS = {
    "nvidia": Pool("nvidia", "cuda", "A800-80G", 4, emulate=EmulateOptions()),
    "ascend": Pool("ascend", "ascend", "Ascend-910B2", 4, emulate=EmulateOptions()),
    "kunlun": Pool("kunlun", "kunlun", "Kunlun-P800", 2, emulate=EmulateOptions()),
}
LINKS = (
    FleetLink(("nvidia", "ascend"), "grpc"),
    FleetLink(("nvidia", "kunlun"), "zmq"),
    FleetLink(("ascend", "kunlun"), "zmq"),
)


@dataclass(frozen=True)
class Job:
    """What is trained, whatever the plan."""

    dimensions: ModelDescription
    train: TrainOptions
    evaluation: EvalOptions = NO_VALIDATION
    precisions: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Of pools that do not compute in the job's."""

    @property
    def coarsest(self) -> str:
        """The precision that rounds most, of those that any pool may have."""
        used = {self.precisions.get(name, self.train.precision) for name in POOLS}
        return next(precision for precision in ("bfloat16", "float16", "float32") if precision in used)

    def complete(self, plan: Plan) -> Plan:
        return complete(plan, self.problem)

    @property
    def problem(self) -> Problem:
        """What plans are asked for, without the times of anything."""
        model, train = architecture(self.dimensions, self.train.tuning), self.train
        workload = model.workload(SEQ_LEN, train.global_batch, train.precision)
        topology = _topology({name: self.precisions.get(name, train.precision) for name in POOLS})
        return Problem(topology, workload, legal_tp=model.legal_tp)


@dataclass
class Run:
    """What a run said of its steps, what its ranks told, and, where it was asked to, its owners' gradients."""

    totals: list[StepTotals] = field(default_factory=list)
    bytes_sent: int = 0
    told: list[Notice] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    folder: Path | None = None

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.totals]

    @property
    def norms(self) -> list[float]:
        return [step.grad_norm for step in self.totals]

    @property
    def eval_losses(self) -> dict[int, float]:
        """By the number of steps that were done."""
        done = enumerate(self.totals, 1)
        return {number: step.eval_loss for number, step in done if step.eval_loss is not None}

    def gradients(self, step: int) -> dict[str, np.ndarray]:
        """Whole gradients by logical name. Every element must come from exactly one owner."""
        assert self.folder is not None
        return {name: one.numpy() for name, one in captured_gradients(self.folder, step).items()}


class Standing:
    """A session that trains job after job; every run is an epoch of its own."""

    def __init__(
        self,
        text: Prepared,
        folder: Path,
        pools: Mapping[str, Pool] = POOLS,
        variables: Mapping[str, Mapping[str, str]] = NO_VARIABLES,
    ) -> None:
        """`variables`, by pool, are its processes' beyond those that all have."""
        self.text, self._folder, self._pools, self._variables = text, folder, dict(pools), variables
        self._epoch = -1
        self._saved: list[CheckpointWritten] = []
        self._run = Run()
        self.session: Session

    @contextmanager
    def up(self, agents: Agents | None = None, rank: str = Programs.rank) -> Iterator[Standing]:
        fleet = fleet_spec(self._pools, rank, self._variables)
        with Session.start(fleet, agents or LocalAgents(), self._hear) as self.session:
            yield self

    def train(
        self,
        job: Job,
        plan: Plan,
        *,
        start: int = 0,
        until: int | None = None,
        begin_from: Path | str | None = None,
        weights: Path | None = None,
        live: bool = False,
        save_to: Path | str | None = None,
        save_every: int | None = None,
        save_directory: bool = False,
        capture: Sequence[int] = (),
        bridge: BridgeOptions = PLAIN_LINKS,
        text: Prepared | None = None,
        hold_at: int | None = None,
    ) -> Run:
        """Steps [start, until), or fewer if the run is asked to hold when it reports step `hold_at`. `begin_from` holds
        the checkpoint of step `start`, or `weights` those of the model; `save_to` gets that of `until`, and those of
        every so many steps before, as directories of the model too if asked to. `text` is another than the session's
        own.

        `live` goes on from what the last run left in the ranks."""
        self._epoch += 1
        text = text or self.text
        until = job.train.steps if until is None else until
        completed = job.complete(plan).model_copy(update={"epoch": self._epoch})
        run = self._run = Run(folder=self._folder / f"epoch-{self._epoch}")
        spec = RunSpec(
            epoch=self._epoch,
            model=job.dimensions,
            train=job.train,
            text=text.told(SEQ_LEN),
            plan=completed,
            pools=self._pools,
            bridge=bridge,
            start=start,
            steps=until,
            time_scale=NO_PACE,
            evaluation=job.evaluation,
            state="live" if live else "weights" if weights else "initial" if begin_from is None else "checkpoint",
            weights_folder=str(weights) if weights else None,
            resume_folder=None if begin_from is None else str(begin_from),
            checkpoint_folder=None if save_to is None else str(save_to),
            checkpoint_every=0 if save_to is None else save_every or until,
            checkpoint_directory=save_directory,
            capture=Capture(folder=str(run.folder), steps=tuple(capture)) if capture else None,
        )
        kept = {} if begin_from is None else CheckpointStore(begin_from).manifest(start).run.scalars
        scale = LossScale.of(job.train.loss_scale, kept).where(completed.precisions().values())
        if save_to is not None:
            CheckpointStore(save_to).begin(until)
        self._saved.clear()
        answers = self.session.configure(spec)
        assert {answer.fingerprint for answer in answers} - {None} == {text.fingerprint}
        run.moved = [answer.moved for answer in answers if answer.moved is not None]

        def on_report(step: int, reports: Sequence[HostStep]) -> None:
            self._record(reports)
            if step == hold_at:
                self.session.hold()

        done = self.session.run(until, on_report)
        assert len(run.totals) == done - start, "one rank, and no other, reports a step's totals"
        for saved in self._saved:
            directory = HfDirectory(HfLayout(as_hf(job.dimensions))) if save_directory else None
            self._commit(saved, CheckpointStore(str(save_to)), job, completed, start, scale, directory)
        return run

    def _record(self, reports: Sequence[HostStep]) -> None:
        self._run.totals += [report.totals for report in reports if report.totals]
        self._run.bytes_sent += sum(total_bytes(report.sent) for report in reports)

    def _commit(
        self,
        saved: CheckpointWritten,
        store: CheckpointStore,
        job: Job,
        plan: Plan,
        start: int,
        scale: LossScale,
        directory: HfDirectory | None,
    ) -> None:
        """As the driver does: it follows the loss scale by what it is told of the steps."""
        steps = self._run.totals[: saved.step - start]
        skipped = [step.skipped for step in steps]
        for step in steps:
            scale = scale.after(step.skipped, step.counted_tokens)
        sequences = (start + len(skipped)) * job.train.global_batch
        state = RunState(
            consumed_sequences=sequences,
            consumed_tokens=sequences * SEQ_LEN,
            job_fingerprint="",
            plan=plan.model_dump(mode="json"),
            scalars={"updates": start + skipped.count(False), **scale.kept()},
        )
        store.commit(saved.step, state, saved.pieces, directory)

    def _hear(self, notice: Notice | CheckpointWritten) -> None:
        if isinstance(notice, CheckpointWritten):
            self._saved.append(notice)
        elif notice.rank is not None:
            self._run.told.append(notice)


def fleet_spec(
    pools: Mapping[str, Pool], rank: str, variables: Mapping[str, Mapping[str, str]] = NO_VARIABLES
) -> FleetSpec:
    common = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    hosting = {name: Hosting(variables=common | dict(variables.get(name, {}))) for name in pools}
    links = tuple(link for link in LINKS if set(link.between) <= pools.keys())
    return FleetSpec(tuple(pools.values()), links, hosting=hosting, programs=Programs(rank=rank))


def _topology(precisions: Mapping[str, str]) -> Topology:
    pools = tuple(pool.planned(precisions[name]) for name, pool in POOLS.items())
    return Topology(pools, tuple(LinkSpec(link.between, 1e9, 0.0) for link in LINKS))
