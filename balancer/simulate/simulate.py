"""A step in simulated time. Of pipelines that are alike one is simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from balancer.cost.sync_traffic import SharedUnits, shared_state
from balancer.plan.plan import Place, Plan
from balancer.problem import Problem
from balancer.schedule.action import STEP, Kind
from balancer.simulate.agenda import Agenda
from balancer.simulate.alike import Alike
from balancer.simulate.beginning import Beginning, FirstForward
from balancer.simulate.computation import Computation, StageRun, TimedAction, made_at
from balancer.simulate.links import SimulatedLinks
from balancer.simulate.prediction import ByPlace
from balancer.simulate.prediction import Prediction as Prediction
from balancer.simulate.scenario import Scenario as Scenario
from balancer.simulate.sync import Overtaken, SyncTiming


def simulate(plan: Plan, problem: Problem, time_scale: float = 1.0) -> Prediction:
    """Predict a step of a completed plan. The problem's times are those of `time_scale` 1."""
    return run(Scenario(plan, problem, time_scale))


def run(scenario: Scenario) -> Prediction:
    try:
        return _of_kinds(scenario)
    except Overtaken:
        return run_all(scenario)


def run_all(scenario: Scenario) -> Prediction:
    """The same from all pipelines on one clock, sync and all: what `run` does where gradients on their way to owners
    hold up messages between stages."""
    links, agenda = scenario.links(), Agenda()
    shared = shared_state(scenario.plan, scenario.workload)
    sync, every = SyncTiming(scenario, shared, links, agenda), range(len(scenario.plan.pipelines))
    computing = Computation(scenario, every, links, agenda, sync)
    computing.run()
    same = dict(zip(every, every, strict=True))
    return _Step(scenario, shared, same, same, computing, sync, links).prediction()


def _of_kinds(scenario: Scenario) -> Prediction:
    """Computation of each kind of neighbourhood by itself, then the sync of all. Raises Overtaken where that is not how
    it goes."""
    plan, links, agenda = scenario.plan, scenario.links(), Agenda()
    alike = Alike(scenario)
    steps_as = alike.steps_as(shared_state(plan, scenario.workload, among=()))
    shared = shared_state(plan, scenario.workload, among=set(steps_as.values()))
    computing = Computation(scenario, (p for one in alike.computing for p in one), scenario.links(), Agenda())
    computing.run()
    sync = SyncTiming(scenario, shared, links, agenda)
    if not scenario.free_links:
        _resume(links, computing, alike.computes_as, plan)
    step = _Step(scenario, shared, steps_as, alike.computes_as, computing, sync, links)
    step.tell(sync)
    agenda.run()
    return step.prediction()


def _resume(links: SimulatedLinks, computing: Computation, computes_as: Mapping[int, int], plan: Plan) -> None:
    """Links as the computation of all pipelines leaves them."""
    for p, like in computes_as.items():
        pipeline = plan.pipelines[p]
        for way in computing.ways[like]:
            links.between(pipeline.stages[way.sender], pipeline.stages[way.receiver]).resume(way.direction)


@dataclass(frozen=True)
class _Step:
    """All that has happened: `steps_as` and `computes_as` say by pipeline which one tells of it."""

    scenario: Scenario
    shared: list[SharedUnits]
    steps_as: Mapping[int, int]
    computes_as: Mapping[int, int]
    computing: Computation
    sync: SyncTiming
    links: SimulatedLinks

    def prediction(self) -> Prediction:
        """A step lasts from one norm to the next one, for clipping needs that of all gradients: updates, what of the
        return of parameters the first forwards do not hide, and the step itself."""
        plan, told = self.scenario.plan, sorted(set(self.steps_as.values()))
        beginning = Beginning(self.scenario, self.shared, told)
        late_s = beginning.late_s(self._first_forwards(told))
        ready_at = {place: self._stage(place).ready_at for place in self._places()}
        leaving_s = {
            place: beginning.host.leaving_s(place, self._made(place), when) for place, when in ready_at.items()
        }
        last = max(ready + late_s[place[0]] + leaving_s[place] for place, ready in ready_at.items())
        summed = max((when + leaving_s[place] for place, when in self._summed_at(late_s).items()), default=0.0)
        norm_s = self._norm_s()
        norm_at = norm_s + max(chain(ready_at.values(), self.sync.ready_at.values()))

        def spans(place: Place) -> list[TimedAction]:
            updated_s = beginning.updated[self.steps_as[place[0]], place[1]]
            return [*self._stage(place).spans, (STEP, norm_at, norm_at + updated_s)]

        return Prediction(
            self.scenario,
            step_s=max(last, summed) + norm_s + self._idle_s(),
            compute_s=max(stage.spans[-1][2] for stage in self.computing.stages.values()),
            busy_s=ByPlace(plan, lambda place: self._stage(place).busy_s),
            spans=ByPlace(plan, spans),
            link_s=self.links.busiest_s(),
        )

    def tell(self, sync: SyncTiming, late_s: Mapping[int, float] | None = None) -> None:
        """What gradients are made when, by pipelines that are late."""
        for place in self._places():
            stage, after_s = self._stage(place), late_s[place[0]] if late_s else 0.0
            for action, end in stage.lasts:
                sync.last_backward(place, action, end + after_s)
            sync.computed(place, stage.ready_at + after_s)

    def _summed_at(self, late_s: Mapping[int, float]) -> Mapping[Place, float]:
        """When owners have all gradients that others make for them. Pipelines that are late by different times meet
        each other otherwise than those that are not."""
        if len(set(late_s.values())) == 1:
            return {place: when + late_s[place[0]] for place, when in self.sync.ready_at.items()}
        agenda = Agenda()
        sync = SyncTiming(self.scenario, self.shared, self.scenario.links(), agenda)
        self.tell(sync, late_s)
        agenda.run()
        return sync.ready_at

    def _places(self) -> Iterator[Place]:
        """Those that tell of all."""
        for p in sorted(set(self.steps_as.values())):
            yield from ((p, s) for s in range(len(self.scenario.plan.pipelines[p].stages)))

    def _stage(self, place: Place) -> StageRun:
        return self.computing.stages[self.computes_as[place[0]], place[1]]

    def _made(self, place: Place) -> Iterator[tuple[int, float]]:
        """The gradients of each unit of a stage, and when."""
        lasts = self._stage(place).lasts
        return chain.from_iterable(made_at(self.scenario, place, action, end) for action, end in lasts)

    def _first_forwards(self, pipelines: list[int]) -> dict[tuple[int, int], FirstForward]:
        found: dict[tuple[int, int], FirstForward] = {}
        for p in pipelines:
            ways = self.computing.ways[self.computes_as[p]]
            for s in range(len(self.scenario.plan.pipelines[p].stages)):
                for action, start, end in self._stage((p, s)).spans:
                    if action.kind is Kind.F and (p, action.chunk) not in found:
                        sends = ways[2 * action.chunk].bytes if 2 * action.chunk < len(ways) else 0.0
                        found[p, action.chunk] = FirstForward(start, end, sends)
        return found

    def _idle_s(self) -> float:
        """What of a step runs on no chip, where that is known of a pool's."""
        topology = self.scenario.topology
        shaped = any(topology.pool(pool).shaped for pool in self.scenario.plan.pools())
        return self.scenario.time_scale * topology.kernels.step_s if shaped else 0.0

    def _norm_s(self) -> float:
        """There and back."""
        first, topology = self.scenario.plan.pipelines[0].stages[0], self.scenario.topology
        if self.scenario.free_links:
            return 0.0
        there = (topology.link(first.pool, pool).latency_s for pool in self.scenario.plan.pools())
        return 2 * self.scenario.time_scale * max(there)
