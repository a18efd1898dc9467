"""A prediction's actions once more, with other seconds each: what waits for what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balancer.plan.plan import StagePlan
from balancer.schedule.action import COMPUTING, Action, Kind, Message, Purpose
from balancer.simulate.links import LinkDirection, SimulatedLinks
from balancer.simulate.simulate import Prediction

Samples = NDArray[np.float64]
Factors = Callable[[StagePlan], Samples]
"""Of one action of a stage: by how much it is longer, in each sample."""

_FORWARD, _BACKWARD = (Kind.F,), (Kind.B, Kind.I)


class Replay:
    """One pipeline of a prediction. Other pipelines' messages are nowhere in its way."""

    def __init__(self, prediction: Prediction, pipeline: int) -> None:
        scenario = prediction.scenario
        self._plan, self._chunks = prediction.plan.pipelines[pipeline], prediction.plan.pipelines[pipeline].chunks()
        self._scenario = scenario
        self._links = SimulatedLinks(scenario.topology, scenario.time_scale, scenario.free_links)
        spans = ((s, span) for (p, s), found in prediction.spans.items() if p == pipeline for span in found)
        computing = [(s, *span) for s, span in spans if span[0].kind in COMPUTING]
        self._actions = sorted(computing, key=lambda one: (one[2], one[3]))
        self._ways = self._boundaries()

    def ends(self, factors: Factors) -> Samples:
        """When the last action ends."""
        self._free: dict[int, Samples] = {}
        arrivals: dict[Message, Samples] = {}
        last: dict[int, Any] = dict.fromkeys(range(len(self._plan.stages)), 0.0)
        for s, action, start, end in self._actions:
            begins = last[s]
            for message in self._needs(action):
                begins = np.maximum(begins, arrivals.pop(message, 0.0))
            last[s] = begins + (end - start) * factors(self._plan.stages[s])
            for message in self._gives(action):
                arrivals[message] = self._carry(message, last[s])
        return np.asarray(np.max(np.broadcast_arrays(*last.values()), axis=0))

    def _needs(self, action: Action) -> list[Message]:
        return self._crossing(action, "activation", -1) + self._crossing(action, "gradient", 0)

    def _gives(self, action: Action) -> list[Message]:
        return self._crossing(action, "activation", 0) + self._crossing(action, "gradient", -1)

    def _crossing(self, action: Action, purpose: Purpose, before: int) -> list[Message]:
        """The message over the boundary behind the action's chunk, or `before` it, if it is one between stages."""
        kinds, boundary = _FORWARD if purpose == "activation" else _BACKWARD, action.chunk + before
        there = action.kind in kinds and (boundary, purpose) in self._ways
        return [(boundary, purpose, action.micro_batch)] if there else []

    def _carry(self, message: Message, now: Samples) -> Samples:
        boundary, purpose, _ = message
        assert purpose is not None
        direction, bytes_ = self._ways[boundary, purpose]
        start = end = now
        for wire in direction.wires:
            start = np.maximum(start, self._free.get(id(wire), 0.0))
            self._free[id(wire)] = start + bytes_ * wire.seconds_per_byte
            end = np.maximum(end, self._free[id(wire)])
        return end + direction.latency_s

    def _boundaries(self) -> dict[tuple[int, Purpose], tuple[LinkDirection, float]]:
        """Between stages: the direction of a link, and the bytes of a message."""
        found: dict[tuple[int, Purpose], tuple[LinkDirection, float]] = {}
        topology, work = self._scenario.topology, self._scenario.workload
        for chunk, after in pairwise(self._chunks):
            if chunk.stage == after.stage:
                continue
            here, there = self._plan.stages[chunk.stage], self._plan.stages[after.stage]
            unit = work.at(topology.crossing(here.pool, there.pool)).units[chunk.units[1] - 1]
            link, bytes_ = topology.link(here.pool, there.pool), unit.boundary_bytes * self._plan.micro_batch
            out, back = self._links.between(here, there), self._links.between(there, here)
            found[chunk.index, "activation"] = out, bytes_ * link.activation_ratio
            found[chunk.index, "gradient"] = back, bytes_ * link.gradient_ratio
        return found
