"""What a chip has for its stage's units, before it is known where the stage is cut and who owns what.
`balancer/memory/` has the exact figures of a finished plan, which decide."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from balancer.memory.communicators import all_to_all_bytes
from balancer.memory.memory import SLACK
from balancer.memory.messages import MESSAGES
from balancer.problem import Problem
from balancer.search.grouping import Group

_Bytes = TypeVar("_Bytes", float, NDArray[np.float64])


class ChipRoom:
    """Of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def limit_bytes(self, group: Group, stage: int) -> float:
        """What a chip of a stage has for its units, wherever they may be cut."""
        pool, _ = group.stages[stage]
        spec = self.problem.topology.pool(pool)
        room = (spec.memory_bytes - self.communicator_bytes(group, stage)) / (1 + SLACK)
        messages = group.micro_batch * self._message_bytes[pool] * len(_neighbours(group, stage))
        return round(room) - messages

    def need_bytes(self, group: Group, stage: int, units_bytes: _Bytes) -> _Bytes:
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

    @cached_property
    def _message_bytes(self) -> dict[str, int]:
        """By pool, per boundary of a stage and sequence, wherever it may be cut."""
        problem = self.problem
        units = {pool.name: problem.workload.at(pool.precision).units for pool in problem.topology.pools}
        return {pool: MESSAGES * max(unit.boundary_bytes for unit in found) for pool, found in units.items()}


def _neighbours(group: Group, stage: int) -> list[int]:
    return [other for other in (stage - 1, stage + 1) if 0 <= other < len(group.stages)]
