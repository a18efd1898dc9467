"""How long an emulated chip is told to take for each action: what its data sheet promises, times the job's scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate

from backends.backend import Backend
from backends.emulation import Emulated
from balancer.cost.stage_times import alone_time, stage_time, stage_unit_time
from balancer.cost.times import datasheet_times, update_s
from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.plan.plan import Plan
from balancer.schedule.action import COMPUTING, Kind
from balancer.schedule.lowering import actions_of, last_backwards
from hetero.engine.step.stage import RankPlace
from hetero.models.registry import architecture
from hetero.words.pool import Pool
from hetero.words.spec import RunSpec

Expected = dict[tuple[Kind, int], float]
"""Seconds by kind and chunk; STEP has the chunk -1."""


Laps = dict[tuple[Kind, int, int], float]
"""By kind of action, chunk and unit. Of a forward, the part of it after which it comes to the unit; of what ends the
chunk's gradients, the part after which the unit's own are made."""


@dataclass(frozen=True)
class ChipPace:
    """What an emulated chip is told to take, of a stage's actions and for each byte that it gives to its host or gets
    from it. A real one is told nothing."""

    expected_s: Expected = field(default_factory=dict)
    laps: Laps = field(default_factory=dict)
    host_byte_s: float = 0.0

    @classmethod
    def of(cls, spec: RunSpec, place: RankPlace, backend: Backend) -> ChipPace:
        if not isinstance(backend, Emulated):
            return cls()
        topology = topology_of(spec.pools, spec.plan.precisions())
        asked = topology, workload_of(spec), spec.plan, place
        host_bytes_per_s = topology.pool(place.ranks[0].pool).chip.host_bytes_per_s
        return cls(expected_s(*asked, spec.time_scale), laps(*asked), spec.time_scale / host_bytes_per_s)

    @property
    def update_s(self) -> float | None:
        """Of all that the chip owns."""
        return self.expected_s.get((Kind.STEP, -1))


def workload_of(spec: RunSpec) -> Workload:
    """What the run's model costs, unit by unit."""
    model, train = architecture(spec.model, spec.train.tuning), spec.train
    work = model.workload(spec.text.seq_len, train.global_batch, train.precision, spec.text.packs)
    shadow = train.shadow.pool if train.shadow else None
    return replace(work, update=train.optimizer.update, shadow=shadow)


def topology_of(pools: Mapping[str, Pool], precisions: Mapping[str, str]) -> Topology:
    """The pools that have a precision, as the balancer sees them, without links."""
    return Topology(tuple(pools[name].planned(precision) for name, precision in precisions.items()))


def expected_s(topology: Topology, workload: Workload, plan: Plan, place: RankPlace, time_scale: float) -> Expected:
    """For the chunks of one stage, of one micro-batch: forwards, backwards, and both parts of these."""
    pipeline, stage = plan.pipelines[place.pipeline], plan.pipelines[place.pipeline].stages[place.stage]
    times = datasheet_times(topology, workload)
    found: Expected = {}
    for chunk in pipeline.chunks():
        if chunk.stage != place.stage:
            continue
        size = pipeline.micro_batch
        time = stage_time(times, topology, workload, stage, range(*chunk.units), size).slowed(size * time_scale)
        found |= {(kind, chunk.index): time.of(kind) for kind in COMPUTING}
    found[Kind.STEP, -1] = time_scale * update_s(topology.pool(stage.pool).chip, workload, stage)
    return found


def alone_expected(spec: RunSpec, pool: str, micro_batch: int) -> Callable[[int], dict[Kind, float]]:
    """Of a micro-batch in a unit of that number, whole on one chip of a pool: its forward, and the gradient of its
    input. Asking is cheap once this is made."""
    topology, workload = topology_of(spec.pools, spec.plan.precisions()), workload_of(spec)
    times = datasheet_times(topology, workload)

    def expected_of(unit: int) -> dict[Kind, float]:
        time = alone_time(times, topology, workload, pool, unit, micro_batch).slowed(spec.time_scale)
        return {kind: time.of(kind) for kind in (Kind.F, Kind.I)}

    return expected_of


def laps(topology: Topology, workload: Workload, plan: Plan, place: RankPlace) -> Laps:
    """Of the chunks of one stage: of a forward, and of a whole backward or, where it is two actions, of that of the
    weight gradients. Backwards go from the last unit to the first."""
    pipeline, stage = plan.pipelines[place.pipeline], plan.pipelines[place.pipeline].stages[place.stage]
    times = datasheet_times(topology, workload)
    last = last_backwards(actions_of(pipeline, plan.schedule)[place.stage])
    found: Laps = {}
    for chunk in pipeline.chunks():
        if chunk.stage == place.stage:
            units, kind = range(*chunk.units), last[chunk.index].kind
            each = [stage_unit_time(times, topology, workload, stage, unit, pipeline.micro_batch) for unit in units]
            begun = _parts(time.of(Kind.F) for time in each)
            made = _parts(time.of(kind) for time in reversed(each))
            found |= {(Kind.F, chunk.index, unit): part for unit, part in zip(units, begun[:-1], strict=True)}
            found |= {(kind, chunk.index, unit): part for unit, part in zip(reversed(units), made[1:], strict=True)}
    return found


def _parts(seconds: Iterable[float]) -> list[float]:
    """How much of all is over at the beginning, and after each."""
    over = list(accumulate(seconds, initial=0.0))
    return [so_far / (over[-1] or 1.0) for so_far in over]
