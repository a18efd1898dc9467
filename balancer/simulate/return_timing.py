"""When updated parameters are where they are needed (`hetero/engine/state/parameter_return.py`). All times are seconds
after the moment when everybody knows the gradient's norm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

from balancer.cost.sync_traffic import SharedUnits, Use, buckets, rounds_of
from balancer.cost.workload import GRADIENT_BYTES
from balancer.memory.memory import WEIGHT_BYTES
from balancer.plan.plan import Place, StagePlan
from balancer.simulate.copies import CopyLinks
from balancer.simulate.links import SimulatedLinks
from balancer.simulate.scenario import Scenario

BackAt = Mapping[tuple[Place, int], float]
"""See `HostTiming.back_at`."""


class ReturnTiming:
    """Owners update slice by slice, and every slice leaves at once: to other pools' hubs over `links`, and inside a
    pool, when hubs have it, in rounds, for which all copies wait. `arrivals` are by use, of what is shared."""

    def __init__(
        self,
        scenario: Scenario,
        shared: Sequence[SharedUnits],
        stages: Mapping[Place, StagePlan],
        updated: Mapping[Place, float],
        back_at: BackAt,
        links: SimulatedLinks,
    ) -> None:
        self._workload, self._topology = scenario.workload, scenario.topology
        self._shared, self._stages, self._updated, self._back_at = shared, stages, updated, back_at
        self._links, self._copies = links, CopyLinks(scenario)
        self._at_hub = self._at_hubs()
        self.arrivals = self._arrivals()

    def joined(self) -> dict[Place, float]:
        """When a stage has given all that others of its pool wait for: what it updates in host memory, where each chip
        of a tensor-parallel group has copies, and what has come to it as a hub. Before, it waits for nobody else."""
        given = {(one.owner, unit) for one in self._shared for _, _, unit in one.uses[one.owner]}
        owed = [
            (place, when)
            for (place, unit), when in self._back_at.items()
            if self._stages[place].tp > 1 or (place, unit) in given
        ]
        for (n, pool), when in self._at_hub.items():
            one = self._shared[n]
            if one.hubs[pool] != one.owner and len(self._places(one, pool)) > 1:
                owed.append((one.hubs[pool], when))
        found: defaultdict[Place, float] = defaultdict(float)
        for place, when in owed:
            found[place] = max(found[place], when)
        return found

    def _at_hubs(self) -> dict[tuple[int, str], float]:
        """By the number of what is shared, and pool."""
        backwards = buckets(
            range(len(self._shared)), lambda n: self._shared[n].route, self._gradient_bytes, self._topology.bucket_bytes
        )
        forwards = [[self._shared[n] for n in bucket[::-1]] for bucket in backwards[::-1]]
        left = self._leave(forwards)
        found: dict[tuple[int, str], float] = {}
        for when, numbers, units in sorted(zip(left, backwards[::-1], forwards, strict=True), key=lambda one: one[0]):
            for pool, hub in units[0].hubs.items():
                here = when if hub == units[0].owner else self._carry(units, units[0].owner, hub, when)
                found |= {(n, pool): here for n in numbers}
        return found

    def _leave(self, forwards: Sequence[Sequence[SharedUnits]]) -> list[float]:
        """When each bucket is updated, and back from its owner's host if it is updated there."""
        done: defaultdict[Place, int] = defaultdict(int)
        left = []
        for bucket in forwards:
            owner = bucket[0].owner
            done[owner] += sum(one.parameters for one in bucket)
            owned = sum(self._workload.units[u].trained for u in self._stages[owner].owned_units())
            back = (self._back_at.get((owner, unit), 0.0) for one in bucket for _, _, unit in one.uses[owner])
            left.append(max(self._updated[owner] * done[owner] / owned, *back))
        return left

    def _arrivals(self) -> dict[Use, float]:
        found: defaultdict[Use, float] = defaultdict(float)
        given = [(max(self._at_hub[n, pool] for n in numbers), pool, numbers) for pool, numbers in self._rounds()]
        for when, pool, numbers in sorted(given):
            alike: defaultdict[Hashable, list[SharedUnits]] = defaultdict(list)
            for n in numbers:
                alike[self._shared[n].route].append(self._shared[n])
            for units in alike.values():
                hub = units[0].hubs[pool]
                for place in self._places(units[0], pool):
                    arrival = when if place == hub else self._carry(units, hub, place, when)
                    for use in (use for one in units for use in one.uses[place]):
                        found[use] = max(found[use], arrival)
        return found

    def _rounds(self) -> Iterator[tuple[str, list[int]]]:
        """By pool, the numbers of what its copies wait for together."""
        forwards = range(len(self._shared) - 1, -1, -1)
        for pool in sorted({stage.pool for stage in self._stages.values()}):
            held = {n: set(places) for n in forwards if (places := self._places(self._shared[n], pool))}
            hubs = {n: self._shared[n].hubs[pool] for n in held}
            for found in rounds_of(held, hubs, self._gradient_bytes, self._topology.bucket_bytes):
                yield pool, found

    def _places(self, one: SharedUnits, pool: str) -> list[Place]:
        """Where a pool has copies."""
        return [place for place in one.uses if self._stages[place].pool == pool]

    def _gradient_bytes(self, n: int) -> int:
        return self._shared[n].parameters * GRADIENT_BYTES

    def _carry(self, units: Sequence[SharedUnits], giver: Place, taker: Place, when: float) -> float:
        source, target = self._stages[giver], self._stages[taker]
        size = WEIGHT_BYTES[self._topology.pool(target.pool).precision] * sum(one.parameters for one in units)
        if self._copies.join(source, target):
            return self._copies.of(target).carry(size, when)
        return self._links.between(source, target).carry(size, when)
