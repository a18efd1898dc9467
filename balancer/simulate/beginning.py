"""How late a step begins, since updated parameters return while it does (`hetero/engine/state/parameter_return.py`).

Owners update slice by slice, and every slice leaves at once. A first forward waits at each unit for its parameters; all
that comes after in a pipeline is as late as its first micro-batch is. An owner whose optimizer lies in host memory may
begin while that updates, and waits for its own slices too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

from balancer.cost.sync_traffic import SharedUnits, Use, buckets
from balancer.cost.times import update_s
from balancer.cost.workload import GRADIENT_BYTES
from balancer.memory.memory import WEIGHT_BYTES
from balancer.plan.plan import Chunk, Place, StagePlan
from balancer.simulate.copies import CopyLinks
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
        self._plan, self._workload, self._topology = scenario.plan, scenario.workload, scenario.topology
        self._times, self._scale, self._links = scenario.times, scenario.time_scale, scenario.links()
        self._shared, self._pipelines, self._copies = shared, sorted(pipelines), CopyLinks(scenario)
        self._chunks = {p: self._plan.pipelines[p].chunks() for p in self._pipelines}
        self._stages = {
            (p, s): stage for p in self._pipelines for s, stage in enumerate(self._plan.pipelines[p].stages)
        }
        self.updated = {
            place: update_s(self._topology.pool(stage.pool).chip, self._workload, stage) * self._scale
            for place, stage in self._stages.items()
        }

    def late_s(self, firsts: Mapping[tuple[int, int], FirstForward]) -> dict[int, float]:
        """By pipeline; `firsts` are by pipeline and chunk."""
        arrivals, joined = self._arrivals(), self._joined()
        return {p: self._late_s(p, arrivals, joined, firsts) for p in self._pipelines}

    def _late_s(
        self,
        p: int,
        arrivals: Mapping[Use, float],
        joined: Mapping[Place, float],
        firsts: Mapping[tuple[int, int], FirstForward],
    ) -> float:
        pipeline, now, most, before = self._plan.pipelines[p], 0.0, 0.0, None
        late = {s: self.updated[p, s] if stage.optimizer == "chip" else 0.0 for s, stage in enumerate(pipeline.stages)}
        for chunk, after in pairwise([*self._chunks[p], None]):
            assert chunk is not None
            stage, first = pipeline.stages[chunk.stage], firsts[p, chunk.index]
            given = joined.get((p, chunk.stage), 0.0)
            now = max(now, first.start + late[chunk.stage], given if before not in (None, chunk.stage) else 0.0)
            for unit in range(*chunk.units):
                size, kind = pipeline.micro_batch, self._workload.units[unit].kind
                now = max(now, arrivals.get((p, chunk.index, unit), 0.0))
                now += self._times.lookup(stage.pool, stage.tp, kind, size).forward_s * size * self._scale
            now, before = max(now, given), chunk.stage
            late[chunk.stage] = now - first.end
            most = max(most, late[chunk.stage])
            if after is not None and after.stage != chunk.stage:
                now = self._links.between(stage, pipeline.stages[after.stage]).carry(first.sends, now)
        return most

    def _arrivals(self) -> dict[Use, float]:
        """When the units of each use are up to date: at their owner, at other pools' hubs, then at other copies."""
        route, bytes_ = (lambda one: one.route), (lambda one: one.parameters * GRADIENT_BYTES)
        backwards = buckets(self._shared, route, bytes_, self._topology.bucket_bytes)
        forwards = [bucket[::-1] for bucket in backwards[::-1]]
        found = self._from_hosts()
        left = self._leave(forwards, found)
        at_hub = {
            (number, pool): left[number]
            for number, bucket in enumerate(forwards)
            for pool, hub in bucket[0].hubs.items()
            if hub == bucket[0].owner
        }
        for number in sorted(range(len(forwards)), key=lambda n: left[n]):
            for pool, hub in forwards[number][0].hubs.items():
                if (number, pool) not in at_hub:
                    at_hub[number, pool] = self._carry(forwards[number], forwards[number][0].owner, hub, left[number])
        for (number, pool), when in sorted(at_hub.items(), key=lambda item: item[1]):
            bucket = forwards[number]
            for place in (place for place in bucket[0].uses if self._stages[place].pool == pool):
                hub = bucket[0].hubs[pool]
                arrival = when if place == hub else self._carry(bucket, hub, place, when)
                for use in (use for one in bucket for use in one.uses[place]):
                    found[use] = max(found.get(use, 0.0), arrival)
        return found

    def _from_hosts(self) -> dict[Use, float]:
        """Of each unit that is updated in host memory, at its owner: one after another, the first needed first."""
        found: dict[Use, float] = {}
        for (p, s), stage in self._stages.items():
            units = sorted(stage.owned_units()) if stage.optimizer == "host" else []
            sizes = [self._workload.units[unit].trained for unit in units]
            back_s = self._host_byte_s(stage) * WEIGHT_BYTES[self._topology.pool(stage.pool).precision] / stage.tp
            done, free_at = 0, 0.0
            for unit, size in zip(units, sizes, strict=True):
                done += size
                free_at = max(free_at, self.updated[p, s] * done / max(1, sum(sizes))) + back_s * size
                found |= {(p, c.index, unit): free_at for c in self._chunks[p] if _has(c, s, unit)}
        return found

    def _joined(self) -> dict[Place, float]:
        """When a stage that updates in host memory has given all that others have copies of, which it waits for before
        it waits for them. Of what a tensor-parallel group updates each chip has copies."""
        found: dict[Place, float] = {}
        given = {one.owner: set[int]() for one in self._shared}
        for one in self._shared:
            given[one.owner] |= {unit for _, _, unit in one.uses[one.owner]}
        for (p, c, unit), when in self._from_hosts().items():
            place = p, self._chunks[p][c].stage
            if self._stages[place].tp > 1 or unit in given.get(place, ()):
                found[place] = max(found.get(place, 0.0), when)
        return found

    def leaving_s(self, place: Place) -> float:
        """How long sums that nothing hides are on their way to host memory: where there are copies all that are owned,
        which leave when they are added up, else the last unit's."""
        stage = self._stages[place]
        if stage.optimizer == "chip" or not stage.owned_units():
            return 0.0
        added_up = [one for one in self._shared if one.owner == place]
        late, last = sum(one.parameters for one in added_up), min(stage.owned_units())
        if not any(unit == last for one in added_up for _, _, unit in one.uses[place]):
            late += self._workload.units[last].trained
        return self._host_byte_s(stage) * GRADIENT_BYTES * late / stage.tp

    def _host_byte_s(self, stage: StagePlan) -> float:
        return self._scale / self._topology.pool(stage.pool).chip.host_bytes_per_s

    def _leave(self, forwards: list[list[SharedUnits]], from_hosts: Mapping[Use, float]) -> list[float]:
        """When each bucket is updated, and back from its owner's host if it is updated there."""
        done: defaultdict[Place, int] = defaultdict(int)
        left = []
        for bucket in forwards:
            owner = bucket[0].owner
            done[owner] += sum(one.parameters for one in bucket)
            owned = sum(self._workload.units[u].trained for u in self._stages[owner].owned_units())
            back = (from_hosts.get(use, 0.0) for one in bucket for use in one.uses[owner])
            left.append(max(self.updated[owner] * done[owner] / owned, *back))
        return left

    def _carry(self, bucket: list[SharedUnits], giver: Place, taker: Place, when: float) -> float:
        source, target = self._stages[giver], self._stages[taker]
        size = WEIGHT_BYTES[self._topology.pool(target.pool).precision] * sum(one.parameters for one in bucket)
        if self._copies.join(source, target):
            return self._copies.of(target).carry(size, when)
        return self._links.between(source, target).carry(size, when)


def _has(chunk: Chunk, stage: int, unit: int) -> bool:
    return chunk.stage == stage and chunk.units[0] <= unit < chunk.units[1]
