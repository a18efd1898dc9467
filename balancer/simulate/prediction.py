"""What a simulated step was like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from balancer.cost.ideal import ideal_tokens_per_s
from balancer.plan.plan import Place, Plan
from balancer.simulate.computation import TimedAction
from balancer.simulate.scenario import Scenario

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Prediction:
    """One step of many. `spans` and `busy_s` are by (pipeline, stage); a span is (action, start, end) of what takes
    time, if all parameters are there at the beginning; where other pipelines' gradients hold up a stage's messages, it
    waits in them, too. `busy_s` counts forwards and backwards, `compute_s` is when the last one ends, and `sync_s` what
    gradients, norm, update and parameters add to that. `late_s`, by pipeline, is what updates and the return of
    parameters take before the first span."""

    scenario: Scenario
    step_s: float
    late_s: Mapping[int, float]
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


class ByPlace(Mapping[Place, _Value]):
    """Of every stage of a plan, told when it is asked for."""

    def __init__(self, plan: Plan, tell: Callable[[Place], _Value]) -> None:
        self._stages, self._tell = [len(pipeline.stages) for pipeline in plan.pipelines], tell

    def __getitem__(self, place: Place) -> _Value:
        p, s = place
        if not (0 <= p < len(self._stages) and 0 <= s < self._stages[p]):
            raise KeyError(place)
        return self._tell(place)

    def __iter__(self) -> Iterator[Place]:
        return ((p, s) for p, stages in enumerate(self._stages) for s in range(stages))

    def __len__(self) -> int:
        return sum(self._stages)
