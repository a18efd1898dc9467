"""Which pipelines of a plan go through a step in the same way, so that one of them tells of all.

Pipelines whose messages meet on a wire between pools wait for each other: they are neighbours. Neighbourhoods are alike
whose pipelines, in their order, differ in nothing but the hosts that they are on and the units that they update; and
then they compute alike. In what follows, the sync, those are alike that are the owners and hubs of the same units too,
which is to say of none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import pairwise
from math import isinf

from balancer.cost.sync_traffic import SharedUnits
from balancer.cost.topology import Topology
from balancer.plan.plan import PipelinePlan, StagePlan
from balancer.simulate.links import End, host_of
from balancer.simulate.scenario import Scenario

Neighbourhood = tuple[int, ...]
_OWN = "chips", "owns"
"""Fields of a stage in which equal pipelines differ."""


class Alike:
    """Pipelines of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._plan, topology = scenario.plan, scenario.topology
        self._crossings = [
            () if scenario.free_links else tuple(_crossings(pipeline, topology)) for pipeline in self._plan.pipelines
        ]
        self.neighbourhoods = _neighbourhoods(self._crossings, topology)
        signatures = [
            (_signature(p, scenario), tuple(_near(pipeline, topology)))
            for p, pipeline in enumerate(self._plan.pipelines)
        ]
        kinds: dict[Hashable, Neighbourhood] = {}
        self.computes_as: dict[int, int] = {}
        """By pipeline, the one that tells how it computes."""
        for neighbourhood in self.neighbourhoods:
            first = kinds.setdefault(self._kind(neighbourhood, signatures), neighbourhood)
            self.computes_as |= zip(neighbourhood, first, strict=True)
        self.computing = tuple(kinds.values())
        """A neighbourhood of each kind."""

    def steps_as(self, shared: Collection[SharedUnits]) -> dict[int, int]:
        """By pipeline, the one that tells of its whole step, where copies of these units exist."""
        duties: defaultdict[int, list[Hashable]] = defaultdict(list)
        for number, one in enumerate(shared):
            for pool, (p, s) in one.hubs.items():
                duties[p].append((number, pool, s))
        for (p, s), stage in self._plan.stages():
            if stage.owns:
                duties[p].append((s, stage.owns))
        found: dict[int, int] = {}
        kinds: dict[Hashable, Neighbourhood] = {}
        for neighbourhood in self.neighbourhoods:
            own = tuple(tuple(duties.get(p, ())) for p in neighbourhood)
            first = kinds.setdefault((self.computes_as[neighbourhood[0]], own), neighbourhood)
            found |= zip(neighbourhood, first, strict=True)
        return found

    def _kind(self, neighbourhood: Neighbourhood, signatures: Sequence[Hashable]) -> Hashable:
        """Hosts by number, in the order in which they are met."""
        hosts: dict[End, int] = {}
        return tuple(
            (signatures[p], tuple(hosts.setdefault(end, len(hosts)) for ends in self._crossings[p] for end in ends))
            for p in neighbourhood
        )


def _signature(p: int, scenario: Scenario) -> Hashable:
    """With which of its stages lie on one host, where that makes a difference."""
    pipeline, topology, hosts = scenario.plan.pipelines[p], scenario.topology, dict[End, int]()
    stages = tuple(_of_stage(stage) for stage in pipeline.stages)
    paces = tuple(scenario.paces.get((p, s)) for s in range(len(stages))) if scenario.paces else ()
    joined = (stage for stage in pipeline.stages if topology.pool(stage.pool).fabric_bytes_per_s is not None)
    together = tuple(hosts.setdefault(host_of(topology, stage), len(hosts)) for stage in joined)
    return pipeline.share, pipeline.micro_batch, pipeline.ticks, stages, paces, together


def _of_stage(stage: StagePlan) -> Hashable:
    return tuple(value for name, value in vars(stage).items() if name not in _OWN)


def _near(pipeline: PipelinePlan, topology: Topology) -> Iterator[bool]:
    """Of each boundary inside a pool whose hosts a fabric joins, whether it is inside a host."""
    for one, other in pairwise(pipeline.stage_of_chunk()):
        here, there = pipeline.stages[one], pipeline.stages[other]
        if here.pool == there.pool and topology.pool(here.pool).fabric_bytes_per_s is not None:
            yield host_of(topology, here) == host_of(topology, there)


def _crossings(pipeline: PipelinePlan, topology: Topology) -> Iterator[tuple[End, End]]:
    """The hosts at both ends of each boundary between two pools."""
    for one, other in pairwise(pipeline.stage_of_chunk()):
        here, there = pipeline.stages[one], pipeline.stages[other]
        if here.pool != there.pool:
            yield host_of(topology, here), host_of(topology, there)


def _neighbourhoods(crossings: Sequence[Sequence[tuple[End, End]]], topology: Topology) -> tuple[Neighbourhood, ...]:
    """In the order of the first pipeline of each."""
    parent = list(range(len(crossings)))

    def root(p: int) -> int:
        while parent[p] != p:
            parent[p] = p = parent[parent[p]]
        return p

    users: dict[Hashable, int] = {}
    for p, ends in enumerate(crossings):
        for pair in ends:
            networks = (end for end in pair if not isinf(topology.pool(end[0]).network_bytes_per_s))
            wires: list[Hashable] = [frozenset(pair), *networks]
            for wire in wires:
                a, b = sorted((root(p), root(users.setdefault(wire, p))))
                parent[b] = a
    found: defaultdict[int, list[int]] = defaultdict(list)
    for p in range(len(crossings)):
        found[root(p)].append(p)
    return tuple(map(tuple, found.values()))
