"""Memory as a search counts it: unit by unit, before it is known who owns what. `balancer/memory/` has the exact
figures of a finished plan, which decide; these are the same rules where they can be added up."""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate

from balancer.memory.communicators import all_to_all_bytes
from balancer.memory.memory import SLACK, WEIGHT_BYTES, optimizer_bytes
from balancer.memory.messages import MESSAGES
from balancer.memory.sync_memory import GRADIENT_BYTES
from balancer.problem import Problem
from balancer.search.grouping import Group


class UnitMemory:
    """Of one problem; everything that several stages share is worked out once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._sums: dict[tuple[str, int, int, bool, float], tuple[float, ...]] = {}

    def limit_bytes(self, group: Group, stage: int) -> float:
        """What a chip of a stage has for its units, wherever they may be cut."""
        pool, _ = group.stages[stage]
        spec = self.problem.topology.pool(pool)
        room = (spec.memory_bytes - self.communicator_bytes(group, stage)) / (1 + SLACK)
        return round(room) - self._message_bytes[pool] * len(_neighbours(group, stage))

    def need_bytes(self, group: Group, stage: int, units_bytes: float) -> float:
        """What a chip must have for its stage's units to fit."""
        has = self.problem.topology.pool(group.stages[stage][0]).memory_bytes
        return has + (units_bytes - self.limit_bytes(group, stage)) * (1 + SLACK)

    def communicator_bytes(self, group: Group, stage: int) -> int:
        """As `balancer.memory.communicators` counts, where tied units may lie apart."""
        pool, tp = group.stages[stage]
        chip, stages = self.problem.topology.pool(pool).chip, [name for name, _ in group.stages]
        sharing = group.pipelines * (2 if self.problem.workload.tied and stages.count(pool) > 1 else 1)
        peers, pairs = sharing * tp - 1, sum(stages[other] == pool for other in _neighbours(group, stage))
        shared = chip.communicator_bytes + all_to_all_bytes(peers, chip) if sharing > 1 else 0
        return (tp > 1) * chip.communicator_bytes + shared + 2 * pairs * chip.pair_communicator_bytes

    def sums(self, pool: str, tp: int, in_flight: int, apart: bool, owned: float) -> tuple[float, ...]:
        """Prefix sums over units of the bytes on one chip that keeps so many micro-batches and owns that part of its
        units. A tied weight counts twice where its two units may be `apart`."""
        key = pool, tp, in_flight, apart, owned
        if key not in self._sums:
            problem, precision = self.problem, self.problem.topology.pool(pool).precision
            units = problem.workload.at(precision).units
            again = {later: first for first, later in problem.workload.tied if apart}
            weight = WEIGHT_BYTES[precision]
            owner = owned * optimizer_bytes(precision, problem.workload.update)
            each = []
            for u, unit in enumerate(units):
                here = [unit, units[again[u]]] if u in again else [unit]
                held = sum(one.parameters * weight + one.trained * GRADIENT_BYTES for one in here)
                kept = in_flight * problem.micro_batch * unit.kept_bytes(tp)
                if u == len(units) - 1:
                    kept += problem.micro_batch * (unit.backward_bytes + unit.remade_bytes) / tp
                whole = (tp - 1) * unit.undivided * (weight + GRADIENT_BYTES + owner)
                each.append((held + unit.trained * owner + whole) / tp + kept)
            self._sums[key] = tuple(accumulate(each, initial=0.0))
        return self._sums[key]

    @cached_property
    def _message_bytes(self) -> dict[str, int]:
        """By pool, per boundary of a stage, wherever it may be cut."""
        problem = self.problem
        units = {pool.name: problem.workload.at(pool.precision).units for pool in problem.topology.pools}
        return {
            pool: MESSAGES * problem.micro_batch * max(unit.boundary_bytes for unit in found)
            for pool, found in units.items()
        }


def _neighbours(group: Group, stage: int) -> list[int]:
    return [other for other in (stage - 1, stage + 1) if 0 <= other < len(group.stages)]
