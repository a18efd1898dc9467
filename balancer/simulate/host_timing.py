"""What an optimizer in host memory adds to a step (`hetero/engine/state/host_update.py`): sums on their way out of the
chip, the update beside the next step's beginning, and parameters that come back for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from balancer.cost.sync_traffic import SharedUnits, buckets
from balancer.cost.workload import GRADIENT_BYTES
from balancer.memory.memory import WEIGHT_BYTES
from balancer.plan.plan import Place, StagePlan
from balancer.simulate.scenario import Scenario


class Leaving(NamedTuple):
    """How long sums are on their way out of a chip, in seconds: those of its stage alone, which queue as they are made,
    after the last backward; and then those that copies add up, once they are complete."""

    queue_s: float = 0.0
    shared_s: float = 0.0


class HostTiming:
    """Of stages whose optimizers lie there. `updated` are the seconds of their updates."""

    def __init__(
        self,
        scenario: Scenario,
        shared: Sequence[SharedUnits],
        stages: Mapping[Place, StagePlan],
        updated: Mapping[Place, float],
    ) -> None:
        self._workload, self._topology, self._scale = scenario.workload, scenario.topology, scenario.time_scale
        self._updated = updated
        self._stages = {p: stage for p, stage in stages.items() if stage.optimizer == "host" and stage.owned_units()}
        self._routes = {
            place: {unit: one.route for one in shared if one.owner == place for _, _, unit in one.uses[place]}
            for place in self._stages
        }
        """Of the units of which there are copies, by the stage that owns them."""

    def back_at(self) -> dict[tuple[Place, int], float]:
        """When each unit is up to date at its owner, after all know the norm: in slices, the first needed first."""
        found: dict[tuple[Place, int], float] = {}
        for place, stage in self._stages.items():
            slices = self._slices(place)
            sizes = [sum(self._workload.units[unit].trained for unit in units) for units in slices]
            back_s = self._byte_s(stage) * WEIGHT_BYTES[self._topology.pool(stage.pool).precision]
            done, free_at = 0, 0.0
            for units, size in zip(slices, sizes, strict=True):
                done += size
                free_at = max(free_at, self._updated[place] * done / max(1, sum(sizes))) + back_s * size
                found |= {(place, unit): free_at for unit in units}
        return found

    def leaving(self, place: Place, made: Iterable[tuple[int, float]], ready_at: float) -> Leaving:
        """Of a stage that has nothing left to compute at `ready_at`. Sums of each unit leave when they are `made`, one
        after another; where there are copies, when all of them are added up."""
        if place not in self._stages:
            return Leaving()
        stage, routes, free_at = self._stages[place], self._routes[place], 0.0
        out_s = {unit: self._byte_s(stage) * self._gradient_bytes(unit) for unit in stage.owned_units()}
        for unit, when in sorted(made, key=lambda one: one[1]):
            if unit in out_s and unit not in routes:
                free_at = max(free_at, when) + out_s[unit]
        return Leaving(max(free_at - ready_at, 0.0), sum(out_s[unit] for unit in routes))

    def _slices(self, place: Place) -> list[list[int]]:
        """Units that are updated, and come back, at once."""
        backwards = sorted(self._stages[place].owned_units(), reverse=True)
        found = buckets(backwards, self._routes[place].get, self._gradient_bytes, self._topology.bucket_bytes)
        return sorted(sorted(units) for units in found)

    def _gradient_bytes(self, unit: int) -> int:
        return self._workload.units[unit].trained * GRADIENT_BYTES

    def _byte_s(self, stage: StagePlan) -> float:
        """Of what a tensor-parallel group gives or is given."""
        return self._scale / self._topology.pool(stage.pool).chip.host_bytes_per_s / stage.tp
