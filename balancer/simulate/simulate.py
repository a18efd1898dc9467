"""A step in simulated time, from the same lowered lists that the executor obeys."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise

from balancer.cost.ideal import ideal_tokens_per_s
from balancer.cost.stage_times import stage_time, stage_unit_time
from balancer.cost.times import Times
from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.plan.plan import PipelinePlan, Place, Plan, StagePlan
from balancer.problem import Problem
from balancer.schedule.action import COMPUTING, KINDS, STEP, Action, Actions, Kind, Message, Purpose, refuse_unknown
from balancer.schedule.lowering import actions_of, last_backwards
from balancer.simulate.beginning import Beginning, FirstForward
from balancer.simulate.links import LinkDirection, SimulatedLinks
from balancer.simulate.sync import SyncTiming

TimedAction = tuple[Action, float, float]
_Message = tuple[int, Message]  # of a pipeline


@dataclass(frozen=True)
class Scenario:
    """What is simulated. `time_scale` slows chips and links alike; `free_links` makes every link infinitely fast."""

    plan: Plan
    problem: Problem
    time_scale: float = 1.0
    free_links: bool = False

    @property
    def topology(self) -> Topology:
        return self.problem.topology

    @property
    def workload(self) -> Workload:
        return self.problem.workload

    @property
    def times(self) -> Times:
        return self.problem.times


@dataclass(frozen=True)
class Prediction:
    """One step of many. `spans` and `busy_s` are by (pipeline, stage); a span is (action, start, end) of what takes
    time, if all parameters are there at the beginning. `busy_s` counts forwards and backwards, `compute_s` is when the
    last one ends, and `sync_s` what gradients, norm, update and parameters add to that."""

    scenario: Scenario
    step_s: float
    compute_s: float
    busy_s: Mapping[Place, float]
    spans: Mapping[Place, list[TimedAction]]
    link_s: float

    @property
    def plan(self) -> Plan:
        return self.scenario.plan

    @property
    def link_ratio(self) -> float:
        """How long the busiest direction between two pools carries bytes, over how long the busiest stage computes."""
        return self.link_s / max(self.busy_s.values())

    @property
    def sync_s(self) -> float:
        return self.step_s - self.compute_s

    @property
    def tokens_per_s(self) -> float:
        workload = self.scenario.workload
        return workload.global_batch * workload.seq_len / self.step_s

    @property
    def efficiency_vs_ideal(self) -> float:
        """Tokens per second over those of `balancer.cost.ideal`, 1 at best."""
        s = self.scenario
        return self.tokens_per_s * s.time_scale / ideal_tokens_per_s(s.topology, s.workload, s.times)


def simulate(plan: Plan, problem: Problem, time_scale: float = 1.0) -> Prediction:
    """Predict a step of a completed plan. The problem's times are those of `time_scale` 1."""
    return run(Scenario(plan, problem, time_scale))


def run(scenario: Scenario) -> Prediction:
    return _Simulator(scenario).run()


class _StageProgress:
    """Where one stage stands in its list."""

    def __init__(self, place: Place, plan: StagePlan, actions: Actions) -> None:
        self.place, self.plan, self.actions = place, plan, actions
        self.last_backwards = last_backwards(actions)
        self.next = 0
        self.spans: list[TimedAction] = []
        self.ready_at = 0.0  # when its list is at STEP


class _Simulator:
    """Events in order of time: a heap of (when, number, what happens then). A stage at a RECV whose message is still
    unsent has no event; the SEND makes one."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.plan, self.workload = scenario, scenario.plan, scenario.workload
        self.costs = scenario.times, scenario.topology, scenario.workload
        self.links = SimulatedLinks(scenario.topology, scenario.time_scale, scenario.free_links)
        self.heap: list[tuple[float, int, Callable[[float], None]]] = []
        self.numbers = count()
        self.sync = SyncTiming(self.plan, self.workload, self.links, scenario.topology.bucket_bytes, self._at)
        self.stages: dict[Place, _StageProgress] = {}
        self.seconds: dict[tuple[int, int, Kind], float] = {}
        self.boundaries: dict[tuple[int, int, Purpose | None], tuple[LinkDirection, float]] = {}
        for p, pipeline in enumerate(self.plan.pipelines):
            for s, actions in enumerate(actions_of(pipeline, self.plan.schedule)):
                refuse_unknown(actions, KINDS, "the simulator")
                self.stages[p, s] = _StageProgress((p, s), pipeline.stages[s], actions)
            self._add_chunks(p, pipeline)
        for stage in self.stages.values():
            self._at(0.0, partial(self._advance, stage))
        self.arrivals: dict[_Message, float] = {}
        self.waiting: dict[_Message, _StageProgress] = {}

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self.heap, (when, next(self.numbers), what))

    def _add_chunks(self, p: int, pipeline: PipelinePlan) -> None:
        chunks = pipeline.chunks()
        size = pipeline.micro_batch
        for chunk in chunks:
            stage = pipeline.stages[chunk.stage]
            time = stage_time(*self.costs, stage, range(*chunk.units), size).slowed(size * self.scenario.time_scale)
            self.seconds |= {(p, chunk.index, kind): time.of(kind) for kind in COMPUTING}
        for chunk, after in pairwise(chunks):
            here, there = pipeline.stages[chunk.stage], pipeline.stages[after.stage]
            topology = self.scenario.topology
            units = self.workload.at(topology.crossing(here.pool, there.pool)).units
            sent = units[chunk.units[1] - 1].boundary_bytes * size
            link = topology.link(here.pool, there.pool)
            forwards, backwards = sent * link.activation_ratio, sent * link.gradient_ratio
            self.boundaries[p, chunk.index, "activation"] = self.links.between(here, there), forwards
            self.boundaries[p, chunk.index, "gradient"] = self.links.between(there, here), backwards

    def run(self) -> Prediction:
        while self.heap:
            now, _, what = heapq.heappop(self.heap)
            what(now)
        compute_s = max(span[2] for stage in self.stages.values() for span in stage.spans)
        busy_s = {place: sum(end - start for _, start, end in stage.spans) for place, stage in self.stages.items()}
        step_s = self._period()
        spans = {place: stage.spans for place, stage in self.stages.items()}
        return Prediction(self.scenario, step_s, compute_s, busy_s, spans, self.links.busiest_s())

    def _advance(self, stage: _StageProgress, now: float) -> None:
        """Go on from `now` until something takes time or must be waited for."""
        p = stage.place[0]
        while stage.next < len(stage.actions):
            action = stage.actions[stage.next]
            kind = action.kind
            if kind is Kind.RECV:
                message = p, action.message
                arrival = self.arrivals.get(message)
                if arrival is None:
                    self.waiting[message] = stage
                    return
                if arrival > now:
                    self._at(arrival, partial(self._advance, stage))
                    return
            elif kind is Kind.SEND:
                self._send((p, action.message), now)
            elif kind is Kind.STEP:
                stage.ready_at = now
                self.sync.at_step(stage.place, now)
            elif kind is not Kind.SYNC:  # which the chunk's last backward has done by now
                end = now + self.seconds[p, action.chunk, kind]
                stage.spans.append((action, now, end))
                stage.next += 1
                if self.sync.shared and stage.last_backwards.get(action.chunk) == action:
                    self._hand_over_gradients(stage, action, end)
                self._at(end, partial(self._advance, stage))
                return
            stage.next += 1

    def _send(self, message: _Message, now: float) -> None:
        p, (boundary, purpose, _) = message
        direction, size = self.boundaries[p, boundary, purpose]
        arrival = self.arrivals[message] = direction.carry(size, now)
        if message in self.waiting:
            self._at(arrival, partial(self._advance, self.waiting.pop(message)))

    def _hand_over_gradients(self, stage: _StageProgress, last: Action, end: float) -> None:
        """Of each unit of a last backward that ends then, once its part of it is done: the last unit's first."""
        chunk = last.chunk
        pipeline = self.plan.pipelines[stage.place[0]]
        size = pipeline.micro_batch
        scale = size * self.scenario.time_scale
        for unit in range(*pipeline.chunks()[chunk].units):
            use = (stage.place[0], chunk, unit)
            if self.sync.concerns(use):
                self._at(end, partial(self.sync.made, stage.place, use))
            end -= stage_unit_time(*self.costs, stage.plan, unit, size).of(last.kind) * scale

    def _period(self) -> float:
        """From one step's norm to the next one's, for clipping needs that of all gradients: updates, what of the return
        of parameters the first forwards do not hide, and the step itself."""
        scenario = self.scenario
        links = SimulatedLinks(scenario.topology, scenario.time_scale, scenario.free_links)
        common = self.plan, self.workload, scenario.topology, scenario.times, links, scenario.time_scale
        beginning = Beginning(*common)
        late_s = beginning.late_s(self.sync.shared, self._first_forwards())
        leaving_s = {place: beginning.leaving_s(place, self.sync.shared) for place in self.stages}
        last = max(stage.ready_at + late_s[place[0]] + leaving_s[place] for place, stage in self.stages.items())
        summed = max((when + leaving_s[place] for place, when in self.sync.ready_at.items()), default=0.0) + max(late_s)
        unhindered = max(max(stage.ready_at, self.sync.ready_at[place]) for place, stage in self.stages.items())
        for place, stage in self.stages.items():
            norm_at = unhindered + self._norm_s()
            stage.spans.append((STEP, norm_at, norm_at + beginning.updated[place]))
        return max(last, summed) + self._norm_s() + self._idle_s()

    def _first_forwards(self) -> dict[tuple[int, int], FirstForward]:
        found: dict[tuple[int, int], FirstForward] = {}
        for (p, _), stage in self.stages.items():
            for action, start, end in stage.spans:
                if action.kind is Kind.F and (p, action.chunk) not in found:
                    _, sends = self.boundaries.get((p, action.chunk, "activation"), (None, 0.0))
                    found[p, action.chunk] = FirstForward(start, end, sends)
        return found

    def _idle_s(self) -> float:
        """What of a step runs on no chip, where that is known of a pool's."""
        topology = self.scenario.topology
        shaped = any(topology.pool(stage.plan.pool).shaped for stage in self.stages.values())
        return self.scenario.time_scale * topology.kernels.step_s if shaped else 0.0

    def _norm_s(self) -> float:
        first, *others = (stage.plan for stage in self.stages.values())
        there = max((self.links.between(first, other).latency_s for other in others), default=0.0)
        return 2 * there
