"""A step in simulated time. Of pipelines that are alike one is simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from balancer.cost.sync_traffic import shared_state
from balancer.plan.plan import Place, Plan
from balancer.problem import Problem
from balancer.schedule.action import STEP, Kind
from balancer.simulate.agenda import Agenda
from balancer.simulate.alike import Alike
from balancer.simulate.beginning import Beginning, FirstForward
from balancer.simulate.computation import Computation, StageRun, TimedAction, made_at
from balancer.simulate.host_timing import Leaving
from balancer.simulate.prediction import ByPlace
from balancer.simulate.prediction import Prediction as Prediction
from balancer.simulate.scenario import Scenario as Scenario
from balancer.simulate.sync import Overtaken, SyncTiming


def simulate(plan: Plan, problem: Problem, time_scale: float = 1.0) -> Prediction:
    """Predict a step of a completed plan. The problem's times are those of `time_scale` 1."""
    return run(Scenario(plan, problem, time_scale))


def run(scenario: Scenario) -> Prediction:
    step = _Step(scenario)
    try:
        return step.prediction(step.synced())
    except Overtaken:
        return step.prediction(step.together())


def run_all(scenario: Scenario) -> Prediction:
    """The same from all pipelines on one clock, sync and all: what `run` does where gradients on their way to owners
    hold up messages between stages."""
    step = _Step(scenario)
    return step.prediction(step.together())


class _Ended(NamedTuple):
    """When stages have nothing left to compute, and when owners have all gradients that others make for them, in
    seconds after all know the norm of the step before. Of places that are alike one is enough. What each stage has done
    is told in seconds after `begun_s` of its pipeline."""

    ready_at: Mapping[Place, float]
    summed_at: Mapping[Place, float]
    link_s: float
    stages: Mapping[Place, StageRun]
    begun_s: Mapping[int, float]

    def spans(self, place: Place) -> list[TimedAction]:
        """From the moment on when the pipeline begins."""
        begun_s = self.begun_s[place[0]]
        return [(action, start - begun_s, end - begun_s) for action, start, end in self.stages[place].spans]

    def left_at(self, place: Place, leaving: Leaving) -> float:
        """When all sums of an owner are where it updates."""
        return max(self.ready_at[place] + leaving.queue_s, self.summed_at.get(place, 0.0)) + leaving.shared_s


class _Step:
    """Computation of each kind of neighbourhood by itself, as if all parameters were there, and how late each pipeline
    is because they are not. Neighbours, who wait for each other's messages, are as late as the last of them.

    `told` are the pipelines that tell of all others' steps, by `steps_as`.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario, self._plan, self._alike = scenario, scenario.plan, Alike(scenario)
        self._steps_as = self._alike.steps_as(shared_state(scenario.plan, scenario.workload, among=()))
        self._told = sorted(set(self._steps_as.values()))
        self._shared = shared_state(scenario.plan, scenario.workload, among=self._told)
        kinds = (p for one in self._alike.computing for p in one)
        self._computing = Computation(scenario, kinds, scenario.links(), Agenda())
        self._computing.run()
        self._beginning = Beginning(scenario, self._shared, self._told)
        self._late_s = self._lateness()

    def synced(self) -> _Ended:
        """Once all is computed, the sync of all. Raises Overtaken where that is not how it goes."""
        links, agenda = self._scenario.links(), Agenda()
        sync = SyncTiming(self._scenario, self._shared, links, agenda)
        if not self._scenario.free_links:
            for p, pipeline in enumerate(self._plan.pipelines):
                for way in self._computing.ways[self._alike.computes_as[p]]:
                    direction = links.between(pipeline.stages[way.sender], pipeline.stages[way.receiver])
                    direction.resume(way.direction, self._late_s[p])
        ready_at = {place: self._stage(place).ready_at + self._late_s[place[0]] for place in self._places()}
        for place, ready in ready_at.items():
            for action, end in self._stage(place).lasts:
                sync.last_backward(place, action, end + self._late_s[place[0]])
            sync.computed(place, ready)
        agenda.run()
        begun_s = dict.fromkeys(self._late_s, 0.0)
        return _Ended(ready_at, sync.ready_at, links.busiest_s(), ByPlace(self._plan, self._stage), begun_s)

    def together(self) -> _Ended:
        """All pipelines and their sync on one clock."""
        links, agenda = self._scenario.links(), Agenda()
        shared = shared_state(self._plan, self._scenario.workload)
        sync = SyncTiming(self._scenario, shared, links, agenda, overtaken=True)
        every = range(len(self._plan.pipelines))
        computing = Computation(self._scenario, every, links, agenda, sync, self._late_s)
        computing.run()
        ready_at = {place: stage.ready_at for place, stage in computing.stages.items()}
        return _Ended(ready_at, sync.ready_at, links.busiest_s(), computing.stages, self._late_s)

    def prediction(self, ended: _Ended) -> Prediction:
        """A step lasts from one norm to the next one, for clipping needs that of all gradients: updates, what of the
        return of parameters the first forwards do not hide, and the step itself."""
        leaving = {place: self._leaving(place, ended.stages[place]) for place in self._places()}
        last = max(ended.left_at(place, leaving[self._as_told(place)]) for place in ended.ready_at)
        norm_s = self._norm_s()
        computed = (ended.stages[place].ready_at - ended.begun_s[place[0]] for place in ended.ready_at)
        summed = (when - self._late_s[place[0]] for place, when in ended.summed_at.items())
        norm_at = norm_s + max(chain(computed, summed))

        def spans(place: Place) -> list[TimedAction]:
            updated_s = self._beginning.updated[self._as_told(place)]
            return [*ended.spans(place), (STEP, norm_at, norm_at + updated_s)]

        return Prediction(
            self._scenario,
            step_s=last + norm_s + self._idle_s(),
            late_s=self._late_s,
            compute_s=max(ended.spans(place)[-1][2] for place in ended.ready_at),
            busy_s=ByPlace(self._plan, lambda place: ended.stages[place].busy_s),
            spans=ByPlace(self._plan, spans),
            link_s=ended.link_s,
        )

    def _lateness(self) -> dict[int, float]:
        """By pipeline."""
        alone, told = self._beginning.late_s(self._first_forwards()), set(self._told)
        found: dict[int, float] = {}
        for neighbours in self._alike.neighbourhoods:
            if told.issuperset(neighbours):
                found |= dict.fromkeys(neighbours, max(alone[p] for p in neighbours))
        return {p: found[like] for p, like in self._steps_as.items()}

    def _first_forwards(self) -> dict[tuple[int, int], FirstForward]:
        """By pipeline and chunk."""
        found: dict[tuple[int, int], FirstForward] = {}
        for p, s in self._places():
            ways = self._computing.ways[self._alike.computes_as[p]]
            for action, start, end in self._stage((p, s)).spans:
                if action.kind is Kind.F and (p, action.chunk) not in found:
                    sends = ways[2 * action.chunk].bytes if 2 * action.chunk < len(ways) else 0.0
                    found[p, action.chunk] = FirstForward(start, end, sends)
        return found

    def _leaving(self, place: Place, stage: StageRun) -> Leaving:
        """Its sums for host memory."""
        made = (made_at(self._scenario, place, action, end) for action, end in stage.lasts)
        return self._beginning.host.leaving(place, chain.from_iterable(made), stage.ready_at)

    def _places(self) -> Iterator[Place]:
        """Those that tell of all."""
        return ((p, s) for p in self._told for s in range(len(self._plan.pipelines[p].stages)))

    def _as_told(self, place: Place) -> Place:
        return self._steps_as[place[0]], place[1]

    def _stage(self, place: Place) -> StageRun:
        return self._computing.stages[self._alike.computes_as[place[0]], place[1]]

    def _idle_s(self) -> float:
        """What of a step runs on no chip, where that is known of a pool's."""
        topology = self._scenario.topology
        shaped = any(topology.pool(pool).shaped for pool in self._plan.pools())
        return self._scenario.time_scale * topology.kernels.step_s if shaped else 0.0

    def _norm_s(self) -> float:
        """There and back."""
        first, topology = self._plan.pipelines[0].stages[0], self._scenario.topology
        if self._scenario.free_links:
            return 0.0
        there = (topology.link(first.pool, pool).latency_s for pool in self._plan.pools())
        return 2 * self._scenario.time_scale * max(there)
