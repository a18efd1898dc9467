"""How late a step begins, since updated parameters return while it does.

A first forward waits at each unit for its parameters; all that comes after in a pipeline is as late as its first
micro-batch is. A stage that updates has nothing sent to it until it is through. One whose optimizer lies in host memory
may begin while that updates, and waits for its own slices too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

from balancer.cost.sync_traffic import SharedUnits
from balancer.cost.times import update_s
from balancer.plan.plan import Place
from balancer.simulate.host_timing import HostTiming
from balancer.simulate.return_timing import ReturnTiming
from balancer.simulate.scenario import Scenario


class FirstForward(NamedTuple):
    """Of a chunk, in a step that begins with all parameters there; and what the boundary behind it sends on."""

    start: float
    end: float
    sends: float


class Beginning:
    """Of the steps of a plan, where `pipelines` stand for those that are like them. All times are seconds after the
    moment when everybody knows the gradient's norm."""

    def __init__(self, scenario: Scenario, shared: list[SharedUnits], pipelines: Collection[int]) -> None:
        """`shared` has these pipelines' uses."""
        self._plan, self._workload, self._times = scenario.plan, scenario.workload, scenario.times
        self._scale, self._links, self._pipelines = scenario.time_scale, scenario.links(), sorted(pipelines)
        stages = {(p, s): stage for p in self._pipelines for s, stage in enumerate(self._plan.pipelines[p].stages)}
        self.updated = {
            place: update_s(scenario.topology.pool(stage.pool).chip, self._workload, stage) * self._scale
            for place, stage in stages.items()
        }
        self.host = HostTiming(scenario, shared, stages, self.updated)
        self._back_at = self.host.back_at()
        returning = ReturnTiming(scenario, shared, stages, self.updated, self._back_at, self._links)
        self._arrivals, self._joined = returning.arrivals, returning.joined()

    def late_s(self, firsts: Mapping[tuple[int, int], FirstForward]) -> dict[int, float]:
        """By pipeline; `firsts` are by pipeline and chunk."""
        return {p: self._late_s(p, firsts) for p in self._pipelines}

    def _late_s(self, p: int, firsts: Mapping[tuple[int, int], FirstForward]) -> float:
        pipeline, now, most, before = self._plan.pipelines[p], 0.0, 0.0, None
        late: dict[int, float] = {}
        for chunk, after in pairwise([*pipeline.chunks(), None]):
            assert chunk is not None
            place, stage, first = (p, chunk.stage), pipeline.stages[chunk.stage], firsts[p, chunk.index]
            given = self._joined.get(place, 0.0)
            free_at = first.start + late[chunk.stage] if chunk.stage in late else self._begun_s(place)
            now = max(now, free_at, given if before not in (None, chunk.stage) else 0.0)
            for unit in range(*chunk.units):
                size, kind = pipeline.micro_batch, self._workload.units[unit].kind
                arrival = self._arrivals.get((p, chunk.index, unit), 0.0)
                now = max(now, arrival, self._back_at.get((place, unit), 0.0))
                now += self._times.lookup(stage.pool, stage.tp, kind, size).forward_s * size * self._scale
            now, before = max(now, given), chunk.stage
            late[chunk.stage] = now - first.end
            most = max(most, late[chunk.stage])
            if after is not None and after.stage != chunk.stage:
                direction = self._links.between(stage, pipeline.stages[after.stage])
                asked_at = 0.0 if after.stage in late else self._begun_s((p, after.stage)) + direction.latency_s
                now = direction.carry(first.sends, max(now, asked_at))
        return most

    def _begun_s(self, place: Place) -> float:
        """When a stage asks for its messages."""
        on_chip = self._plan.pipelines[place[0]].stages[place[1]].optimizer == "chip"
        return self.updated[place] if on_chip else 0.0
