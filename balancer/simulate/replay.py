"""A prediction's actions once more, with other seconds each: what waits for what stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from balancer.plan.plan import Place, StagePlan
from balancer.schedule.action import COMPUTING, Action, Kind, Message, Purpose
from balancer.simulate.agenda import Agenda
from balancer.simulate.computation import Computation, Way
from balancer.simulate.links import Wire
from balancer.simulate.prediction import Prediction

Drawn = NDArray[np.float64]
"""By sample."""
Factors = Callable[[StagePlan], Drawn]
"""Of one action of a stage: by how much it is longer, by chip (or one row for all) and sample."""

_PURPOSES: dict[Kind, Purpose] = {Kind.F: "activation", Kind.B: "gradient", Kind.I: "gradient"}
"""What each kind of action waits for and sends on."""


class Replay:
    """One pipeline of a prediction. Other pipelines' messages are nowhere in its way. Each chip of a stage goes on by
    itself until a message comes, of which all give each other what they got."""

    def __init__(self, prediction: Prediction, pipeline: int) -> None:
        scenario, self._plan = prediction.scenario, prediction.plan.pipelines[pipeline]
        self._ways = Computation(scenario, (pipeline,), scenario.links(), Agenda()).ways[pipeline]
        places = [(pipeline, s) for s in range(len(self._plan.stages))]
        spans = ((place[1], *span) for place in places for span in prediction.spans[place])
        self._actions = sorted((span for span in spans if span[1].kind in COMPUTING), key=lambda one: (one[2], one[3]))
        self._updates = [self._update_s(prediction, place) for place in places]
        self._late_s = prediction.late_s[pipeline]
        self._free: dict[Wire, Drawn] = {}

    def ends(self, factors: Factors, updates: Factors) -> Drawn:
        """When the last action ends of a step, which begins with updates."""
        self._free.clear()
        arrivals: dict[Message, Drawn] = {}
        begun = enumerate(zip(self._plan.stages, self._updates, strict=True))
        last = {s: seconds * updates(stage) - self._late_s for s, (stage, seconds) in begun}
        first = self._plan.stage_of_chunk()[0]
        if self._updates[first] < self._late_s:  # it waits for others, too
            last[first] = np.maximum(last[first], 0.0)
        for s, action, start, end in self._actions:
            begins = last[s]
            if needed := self._needs(action):
                begins = np.maximum(begins.max(axis=0), arrivals.pop(needed, 0.0))
            last[s] = begins + (end - start) * factors(self._plan.stages[s])
            if given := self._gives(action):
                arrivals[given] = self._carry(given, last[s].max(axis=0))
        return np.asarray(np.max([ends.max(axis=0) for ends in last.values()], axis=0))

    def _update_s(self, prediction: Prediction, place: Place) -> float:
        """Of the chips, as far as it holds them up."""
        _, start, end = prediction.spans[place][-1]
        return end - start if self._plan.stages[place[1]].optimizer == "chip" else 0.0

    def _needs(self, action: Action) -> Message | None:
        return self._crossing(action, action.chunk - (action.kind is Kind.F))

    def _gives(self, action: Action) -> Message | None:
        return self._crossing(action, action.chunk - (action.kind is not Kind.F))

    def _crossing(self, action: Action, boundary: int) -> Message | None:
        """What the action waits for or sends on over the boundary, if that is one between stages."""
        purpose = _PURPOSES.get(action.kind)
        if purpose is None or not 0 <= 2 * boundary < len(self._ways):
            return None
        way = self._way(boundary, purpose)
        return (boundary, purpose, action.micro_batch) if way.sender != way.receiver else None

    def _carry(self, message: Message, now: Drawn) -> Drawn:
        """When it arrives. As a `LinkDirection` does, for all samples at once."""
        way, start, end = self._way(*message[:2]), now, now
        for wire in way.direction.wires:
            start = np.maximum(self._free.get(wire, 0.0), start)
            self._free[wire] = free = start + way.bytes * wire.seconds_per_byte
            end = np.maximum(end, free)
        return end + way.direction.latency_s

    def _way(self, boundary: int, purpose: Purpose | None) -> Way:
        return self._ways[2 * boundary + (purpose == "gradient")]
