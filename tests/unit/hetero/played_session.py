"""A fleet without processes: it obeys plans in simulated time, on chips that change their speed by the step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import hetero.run as run_module
from balancer.simulate.simulate import Prediction, simulate
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.job.job import Job
from hetero.job.planning.measuring import Measurements
from hetero.job.planning.problem import problem
from hetero.job.run.spec import fleet_links
from hetero.words.orders import Configured, Moved
from hetero.words.spec import RunSpec
from hetero.words.step import HostStep, StageTimes, StepTotals
from tests.unit.balancer.rebalance.simulated_run import slower

Ratios = Callable[[int], dict[str, float]]
"""By pool, how much slower than its data sheet it is in a step."""
PAUSE_BYTES = 1000


class PlayedSession:
    """`specs` are the epochs that it was given. A run that is held ends after the step that follows."""

    def __init__(self, job: Job, ratios: Ratios, after_step: Callable[[int], None] = lambda step: None) -> None:
        self.fleet = fleet_of(job.pools, fleet_links(job), local=True)
        self.usable_bytes: dict[str, int] = {}
        self.specs: list[RunSpec] = []
        self._job, self._ratios, self._after_step, self._problem = job, ratios, after_step, problem(job)
        self._known: dict[tuple[int, tuple[tuple[str, float], ...]], Prediction] = {}
        self._step, self._held = 0, False
        self.clock = 1_000_000.0

    def relink(self, links: Sequence[Any]) -> None: ...

    def configure(self, spec: RunSpec) -> list[Configured]:
        assert spec.start == self._step
        self.specs.append(spec)
        moved = Moved({"nvidia": PAUSE_BYTES}, PAUSE_BYTES, 0, 0.1) if spec.state == "live" else None
        return [Configured(spec.epoch, moved=moved)]

    def hold(self) -> None:
        self._held = True

    def run(self, until: int, on_report: Callable[[int, Sequence[HostStep]], None]) -> int:
        last = False
        while self._step < until and not last:
            last, step = self._held, self._step
            self._step += 1
            on_report(step, self._reports(step))
            self._after_step(step)
        self._held = False
        return self._step

    def predicted(self, step: int) -> Prediction:
        """Of the plan that it obeys, on chips as fast as they are then."""
        ratios, spec = self._ratios(step), self.specs[-1]
        key = spec.epoch, tuple(sorted(ratios.items()))
        if key not in self._known:
            self._known[key] = simulate(spec.plan, slower(self._problem, ratios), spec.time_scale)
        return self._known[key]

    def _reports(self, step: int) -> list[HostStep]:
        took = self.predicted(step)
        begin, self.clock = self.clock, self.clock + took.step_s
        return [
            HostStep(
                step, self.specs[-1].epoch, begin, self.clock, *[0.0] * 7, {}, {}, 0, False,
                pool, f"{pool}@0", 1, _totals(step) if number == 0 else None, tuple(_stages(took, pool)),
            )
            for number, pool in enumerate(sorted(took.plan.pools()))
        ]  # fmt: skip


def _totals(step: int) -> StepTotals:
    return StepTotals(5.0 - step / 100, 1024, 1.0, 1e-3, 1.0, False, 1024 * (step + 1), 1024)


def _stages(took: Prediction, pool: str) -> Iterator[StageTimes]:
    for (p, s), stage in took.plan.stages():
        if stage.pool == pool:
            seconds = took.busy_s[p, s]
            yield StageTimes(p, s, pool, seconds / 3, 2 * seconds / 3, 0.0, 0.0, 0, f"{pool}@0")


def play(patch: pytest.MonkeyPatch, session: PlayedSession, carried: bool = False) -> None:
    """Has `train` run on it; its checkpoints are `carried` to the driver."""
    agents = SimpleNamespace(notes=(), carries_checkpoints=carried)
    for name in ("ray_runtime", "ray_agents"):
        patch.setattr(run_module, name, lambda *_: contextlib.nullcontext(agents))
    patch.setattr(Session, "start", lambda *_: contextlib.nullcontext(session))
    patch.setattr(run_module, "measure", lambda job, *_: Measurements(job.time_scale, None))
