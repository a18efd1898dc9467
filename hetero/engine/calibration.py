"""A short measurement before the plan: what each kind of unit takes on this pool's chips, all chips at work at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
import torch.distributed as dist

from backends.backend import Backend, Stopwatch
from backends.emulation import Emulated
from balancer.cost.stage_times import stage_unit_time
from balancer.cost.times import datasheet_times
from balancer.plan.plan import StagePlan
from balancer.plan.recompute import Recompute
from balancer.schedule.action import COMPUTING, Kind
from hetero.engine.expected import topology_of
from hetero.engine.passes import Expected, Passes
from hetero.engine.products import Products
from hetero.engine.repeats import Repeats, repeat, spread
from hetero.engine.trial import Limits, Trial
from hetero.engine.world import World
from hetero.layers.group import TensorGroup
from hetero.models.registry import architecture
from hetero.words.orders import TimedUnit
from hetero.words.spec import CalibrationSpec

_HOST_LIMITS = Limits(flops=1e10, bytes=256e6)
"""Where the host computes: half a second of a core, and what several ranks of a small machine may have at once."""

_WAYS: tuple[Recompute, ...] = ("selective", "full")


def calibrate(spec: CalibrationSpec, world: World) -> list[TimedUnit]:
    """A row per kind of unit, tensor-parallel size and micro-batch: seconds per sequence, the middle of the repeats.

    With a `time_scale`, seconds are those of the emulated chip; without, real ones. What an emulated chip cannot be
    paced to, since computing it here takes longer, is left out. Collective within the pool; index 0 speaks for all.
    """
    me, rows, limits = world.rank, [], limits_of(world.backend)
    for tp in spec.tensor_parallel[me.pool]:
        group = group_of(world, tp)
        if me.index < world.size // tp * tp:
            rows += _unit_rows(spec, world, group, limits)
    world.end_epoch()
    return rows if me.index == 0 else []


def group_of(world: World, tp: int) -> TensorGroup:
    """This rank's among all of that size that the pool has room for. All begin at once."""
    me, group = world.rank, TensorGroup()
    for first in range(0, world.size - tp + 1, tp) if tp > 1 else ():
        made = world.communicator(f"calibration with tp {tp}", range(first, first + tp))
        group = TensorGroup(tp, me.index - first, made) if made is not None else group
    if group.communicator is not None:
        group.communicator.meet()
    dist.all_reduce(torch.zeros(1))
    return group


def limits_of(backend: Backend) -> Limits:
    """A chip has the time, and memory for what it trains later, on more chips perhaps. All of a pool keep the limits of
    the one with the least, for they measure together."""
    if backend.device.type == "cpu":
        return _HOST_LIMITS
    usable_bytes = torch.tensor(float(backend.usable_bytes() or backend.memory().limit_bytes), dtype=torch.float64)
    dist.all_reduce(usable_bytes, dist.ReduceOp.MIN)
    return Limits(inf, usable_bytes.item() / 8)


def _unit_rows(spec: CalibrationSpec, world: World, group: TensorGroup, limits: Limits) -> list[TimedUnit]:
    units = architecture(spec.model, spec.tuning).units
    kinds = {unit.kind: index for index, unit in reversed(list(enumerate(units)))}
    rows: list[TimedUnit | None] = []
    for kind, index in kinds.items():
        asked = group.size, spec.precisions[world.rank.pool], spec.micro_batch, spec.seq_len, spec.tuning, spec.packed
        whole = Trial(spec.model, kind, *asked)
        plain = _TriedUnit(spec, world, group, whole, limits, index, spec.repeats)
        sizes = [size for size in spec.also if size != spec.micro_batch]
        others = [replace(plain, whole=replace(whole, sequences=size), repeats=_fewer(spec.repeats)) for size in sizes]
        rows.append(plain.row(strategies=spec.strategies))
        rows += [other.row() for other in others if other.fits]
    return [row for row in rows if row is not None]


@dataclass(frozen=True)
class _TriedUnit:
    """One unit, for a micro-batch of `whole`, of which as much is tried as keeps the limits."""

    spec: CalibrationSpec
    world: World
    group: TensorGroup
    whole: Trial
    limits: Limits
    index: int
    repeats: int

    @property
    def _trial(self) -> Trial:
        return self.whole.within(self.limits)

    @property
    def fits(self) -> bool:
        """Whether all of it is tried, in a time that an emulated chip may take."""
        expected = self._expected(self.whole, "none")
        return self._trial == self.whole and self.whole.is_soon_passed(_whole_s(expected))

    def row(self, strategies: bool = False) -> TimedUnit | None:
        """None where an emulated chip could not keep its pace. All of a group do the same, whatever each could keep."""
        plain = self._repeat(lambda passes: passes.whole(), self.repeats)
        parts = self._repeat(lambda passes: passes.apart(), _fewer(self.repeats)) if strategies else None
        selective, full = (self._remade_s(way) if strategies else None for way in _WAYS)
        if plain is None:
            return None
        forward, backward = self._per_sequence(plain, (Kind.F, Kind.B))
        inputs, weights = self._per_sequence(parts, (Kind.I, Kind.W)) if parts else (None, None)
        products = self._products_s(forward + backward, sum(each.middle for each in plain))
        key = self.world.rank.pool, self.whole.tp, self.whole.kind
        made = inputs, weights, selective, full
        seen = min(len(each.seconds) for each in plain), spread(plain)
        return TimedUnit(*key, forward, backward, products, self.whole.sequences, *made, *seen)

    def _remade_s(self, way: Recompute) -> float | None:
        """Of a backward that makes values again; None where it is one of another kind, or could not be paced."""
        unit = architecture(self.spec.model, self.spec.tuning).units[self.index]
        if unit.recomputed(way) != way:
            return None
        made = self._repeat(lambda passes: passes.whole(), _fewer(self.repeats), way)
        return None if made is None else self._per_sequence(made, (Kind.F, Kind.B), way)[1]

    def _repeat(
        self, once: Callable[[Passes], Sequence[Stopwatch]], wanted: int, recompute: Recompute = "none"
    ) -> list[Repeats] | None:
        trial, expected = self._trial, self._expected(self._trial, recompute)
        passes = Passes(self.world, self.group, trial, self.index, expected, recompute)
        return repeat(lambda: once(passes), trial.repeats(self.limits, wanted, _whole_s(expected)))

    def _per_sequence(
        self, took: list[Repeats], kinds: tuple[Kind, Kind], recompute: Recompute = "none"
    ) -> tuple[float, float]:
        """Of the whole micro-batch: of what was tried a part is told by what a chip is expected to take for it, or by
        its products."""
        expected, whole = (self._expected(trial, recompute) for trial in (self._trial, self.whole))
        forward, backward = self._trial.shares_of(self.whole)
        scale, found = self.whole.sequences * (self.spec.time_scale or 1.0), []
        for kind, repeats in zip(kinds, took, strict=True):
            share = forward if kind is Kind.F else backward
            part, all_ = expected.get(kind), whole.get(kind)
            found.append(repeats.middle / (part / all_ if part and all_ else share) / scale)
        return found[0], found[1]

    def _products_s(self, whole_s: float, took_s: float) -> float | None:
        """Of a forward with its backward. On a chip that waits for its host they may seem longer."""
        if self.spec.time_scale is None or isinstance(self.world.backend, Emulated):
            return None
        passes = Passes(self.world, self.group, self._trial, self.index, {})
        passes.whole()
        with Products(self.world.backend) as products:
            passes.whole()
        return whole_s * min(1.0, products.seconds / took_s) if took_s > 0 else 0.0

    def _expected(self, trial: Trial, recompute: Recompute) -> Expected:
        spec, pool = self.spec, self.world.rank.pool
        if spec.time_scale is None or not isinstance(self.world.backend, Emulated):
            return {}
        workload = architecture(trial.model, trial.tuning).workload(trial.seq_len, trial.sequences, trial.precision)
        chips = topology_of(spec.pools, spec.precisions)
        stage = StagePlan(pool=pool, tp=trial.tp, units=((self.index, self.index + 1),), recompute=recompute)
        time = stage_unit_time(datasheet_times(chips, workload), chips, workload, stage, self.index)
        slowed = time.slowed(trial.sequences * spec.time_scale)
        return {kind: slowed.of(kind) for kind in COMPUTING}


def _fewer(repeats: int) -> int:
    """Of what hangs together with something that is timed more often."""
    return -(-repeats // 4)


def _whole_s(expected: Expected) -> float:
    """Of a forward with its backward."""
    return expected[Kind.F] + expected[Kind.B] if expected else 0.0
