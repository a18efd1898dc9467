"""How long things take: units on chips, bytes on links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from backends.chip import ChipSpec
from balancer.cost.kernels import SQUARES, SWEEPS
from balancer.cost.topology import LinkSpec, PoolSpec, Topology
from balancer.cost.workload import UnitWork, Workload
from balancer.errors import CostError
from balancer.plan.plan import StagePlan
from balancer.plan.recompute import Recompute
from balancer.schedule.action import Kind
from bridge.precision import ITEM_BYTES

_Key = tuple[str, int, str]
_Modelled = Callable[[str, int, str, int], "UnitTime"]
"""Of a pool, tp, kind of unit and size of the micro-batch."""
_WAYS: tuple[Recompute, ...] = ("selective", "full")
UPDATE_BYTES = 28
"""Of AdamW in float32, which reads gradient, value and two moments and writes the last three; SGD, which moves less, is
taken for it."""


class UnitTime(NamedTuple):
    """Seconds per sequence of one unit on one tensor-parallel group, its collectives included, of which the forward has
    `collectives_s`. `weight_s` is the part of the backward that makes the gradients of products' weights, where that is
    an action of its own: then `hidden_s` of collectives, which a whole backward has beside them, belongs to the other
    part."""

    forward_s: float
    backward_s: float
    weight_s: float = 0.0
    hidden_s: float = 0.0
    collectives_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.forward_s + self.backward_s

    def taken_s(self, apart: bool) -> float:
        """Forward and backward, where that is one action or two `apart`."""
        return self.total_s + (self.hidden_s if apart else 0.0)

    def of(self, kind: Kind) -> float:
        """Of an action that computes."""
        kinds = {Kind.F: self.forward_s, Kind.B: self.backward_s, Kind.W: self.weight_s}
        return kinds[kind] if kind in kinds else self.backward_s - self.weight_s + self.hidden_s

    def divided_as(self, other: UnitTime) -> UnitTime:
        """The same with parts as large as the other's."""
        forward, backward = self.forward_s / (other.forward_s or 1.0), self.backward_s / (other.backward_s or 1.0)
        parts = backward * other.weight_s, backward * other.hidden_s, forward * other.collectives_s
        return UnitTime(self.forward_s, self.backward_s, *parts)

    def slowed(self, ratio: float) -> UnitTime:
        """The same on a chip that is slower by a ratio."""
        return UnitTime(*(ratio * seconds for seconds in self))


class Times:
    """Unit times by (pool, tp, kind of unit) and size of the micro-batch, in sequences: measured ones first, `modelled`
    ones for what was not measured. `known` are those of micro-batches of one sequence."""

    def __init__(self, known: Mapping[_Key, UnitTime], modelled: _Modelled | None = None):
        self._measured = {key: {1: time} for key, time in known.items()}
        self._again_s: dict[tuple[_Key, Recompute], dict[int, float]] = {}
        self._modelled = modelled
        self._found: dict[tuple[_Key, int], UnitTime] = {}

    def lookup(self, pool: str, tp: int, kind: str, micro_batch: int = 1) -> UnitTime:
        """Seconds per sequence, whatever the size. Raises CostError for what is neither measured nor modelled."""
        asked = (pool, tp, kind), micro_batch
        if asked not in self._found:
            self._found[asked] = self._lookup(*asked)
        return self._found[asked]

    def _lookup(self, key: _Key, micro_batch: int) -> UnitTime:
        """Between sizes of which one was measured there is what the model sees between them."""
        measured = self._measured.get(key)
        if measured:
            near = _nearest(measured, micro_batch)
            return measured[near].slowed(self._grown(key, near, micro_batch))
        if self._modelled is None:
            pool, tp, kind = key
            rule = f"the time of unit kind {kind!r} on pool {pool} at tp {tp} was never measured"
            raise CostError("times", list(key), rule, "measure it, or give datasheet times for what is not measured")
        return self._modelled(*key, micro_batch)

    def again_s(self, pool: str, tp: int, kind: str, recompute: Recompute, micro_batch: int = 1) -> float | None:
        """How much longer a backward takes that makes values again, per sequence; None where nobody measured that."""
        key = pool, tp, kind
        measured = self._again_s.get((key, recompute))
        if not measured:
            return None
        near = _nearest(measured, micro_batch)
        return measured[near] * self._grown(key, near, micro_batch)

    def _grown(self, key: _Key, measured: int, asked: int) -> float:
        """How much longer a sequence takes in a micro-batch of another size."""
        if self._modelled is None or measured == asked:
            return 1.0
        before = self._modelled(*key, measured).total_s
        return self._modelled(*key, asked).total_s / before if before > 0 else 1.0

    def knows(self, pool: str, tp: int, workload: Workload) -> bool:
        return self._modelled is not None or all((pool, tp, unit.kind) in self._measured for unit in workload.units)

    @staticmethod
    def from_measurements(rows: Iterable[Mapping[str, Any]], otherwise: Times | None = None) -> Times:
        """Rows of {"pool", "tp", "kind", "forward_s", "backward_s"}, in seconds per sequence, of micro-batches of
        "micro_batch" sequences, which is 1 where it is left out; of equal ones the median counts. They may say what
        the actions of a backward take by themselves, "input_s" and "weight_s", and backwards that make values again,
        "selective_s" and "full_s".

        What was not measured is taken from `otherwise`, scaled by how the pool's measurements compare with it; so are
        the parts of forwards and backwards that a row leaves out.
        """
        found: dict[tuple[_Key, int], list[Mapping[str, Any]]] = {}
        for row in rows:
            key = row["pool"], int(row["tp"]), row["kind"]
            found.setdefault((key, int(row.get("micro_batch", 1))), []).append(row)
        measured: dict[_Key, dict[int, UnitTime]] = {}
        for (key, size), mine in found.items():
            measured.setdefault(key, {})[size] = _measured(mine, otherwise.lookup(*key, size) if otherwise else None)
        made = Times({}, _scaled(otherwise, measured) if otherwise else None)
        made._measured = measured
        for (key, size), mine in found.items():
            for recompute, longer_s in _made_again(mine):
                made._again_s.setdefault((key, recompute), {})[size] = longer_s
        return made


def _nearest(sizes: Iterable[int], asked: int) -> int:
    return min(sizes, key=lambda size: (abs(size - asked), size))


def _measured(rows: Sequence[Mapping[str, Any]], otherwise: UnitTime | None) -> UnitTime:
    """Of equal rows. What the two actions of a backward take more than one is what that hides."""
    took = UnitTime(median(row["forward_s"] for row in rows), median(row["backward_s"] for row in rows))
    if otherwise is not None:
        took = took.divided_as(otherwise)
    inputs, weights = _median(rows, "input_s"), _median(rows, "weight_s")
    if inputs is None or weights is None:
        return took
    return took._replace(weight_s=weights, hidden_s=max(0.0, inputs + weights - took.backward_s))


def _made_again(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Recompute, float]]:
    """How much longer equal rows' backwards are, by way."""
    backward = median(row["backward_s"] for row in rows)
    for recompute in _WAYS:
        if (again := _median(rows, f"{recompute}_s")) is not None:
            yield recompute, max(0.0, again - backward)


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Of those that say it."""
    said = [row[name] for row in rows if row.get(name) is not None]
    return median(said) if said else None


def _scaled(modelled: Times, measured: Mapping[_Key, Mapping[int, UnitTime]]) -> _Modelled:
    def lookup(pool: str, tp: int, kind: str, micro_batch: int) -> UnitTime:
        of_pool = {(key, size): t for key, sizes in measured.items() if key[0] == pool for size, t in sizes.items()}
        expected = sum(modelled.lookup(*key, size).total_s for key, size in of_pool)
        ratio = sum(time.total_s for time in of_pool.values()) / expected if expected > 0 else 1.0
        return modelled.lookup(pool, tp, kind, micro_batch).slowed(ratio)

    return lookup


def datasheet_times(topology: Topology, workload: Workload) -> Times:
    """Times by the chips' data sheets; a backward computes twice what its forward does but for the gradients of what is
    frozen, beside what it makes again, and has as many collectives, beside which it makes weight gradients. What
    `tp_slices` of a stage hide of a forward's is not counted. Units of one kind are taken to cost the same."""
    units = {
        pool.name: {unit.kind: unit for unit in reversed(workload.at(pool.precision).units)} for pool in topology.pools
    }

    def modelled(name: str, tp: int, kind: str, micro_batch: int) -> UnitTime:
        pool, unit = topology.pool(name), units[name][kind]
        if pool.shaped:
            return _shaped_time(topology, pool, tp, unit, micro_batch)
        return _flat_time(pool, tp, unit)

    return Times({}, modelled)


def _flat_time(pool: PoolSpec, tp: int, unit: UnitWork) -> UnitTime:
    """By the chip's attainable FLOP/s and interconnect, whatever the shapes: as emulated chips are paced."""
    flops_per_s = pool.flops_per_s * tp
    compute = unit.forward_flops / flops_per_s
    ring = 2 * (tp - 1) / tp * unit.boundary_bytes / pool.chip.interconnect_bytes_per_s  # one all-reduce
    collectives = unit.tp_collectives * ring
    remade, weights = unit.remade_flops / flops_per_s, unit.weight_flops / flops_per_s
    hidden = min(collectives, weights)
    backward = unit.backward_flops / flops_per_s + remade + collectives - hidden
    return UnitTime(compute + collectives, backward, weights, hidden, collectives)


def _shaped_time(topology: Topology, pool: PoolSpec, tp: int, unit: UnitWork, micro_batch: int) -> UnitTime:
    """By what kernels lose (`balancer.cost.kernels`). A backward has twice a forward's, the half of it with the
    gradients of weights."""
    kernels, per_flop = topology.kernels, 1 / (tp * pool.matrix_flops_per_s * topology.kernels.products)
    squares = (unit.forward_flops - unit.product_flops) * per_flop / SQUARES
    weights_bytes = unit.parameters * ITEM_BYTES[pool.precision] / tp / micro_batch
    moved_s = (SWEEPS * unit.kept_bytes(tp) + weights_bytes) / pool.chip.memory_bytes_per_s
    forward = max(unit.product_flops * per_flop + squares + moved_s, kernels.launch_s / micro_batch)
    backward = 2 * forward + (unit.remade_flops - unit.frozen_flops) * per_flop
    collectives = unit.tp_collectives * _ring_s(topology, pool, tp, unit, micro_batch)
    weights = unit.weight_flops * per_flop
    hidden = min(collectives, weights)
    return UnitTime(forward + collectives, backward + collectives - hidden, weights, hidden, collectives)


def _ring_s(topology: Topology, pool: PoolSpec, tp: int, unit: UnitWork, micro_batch: int) -> float:
    """An all-reduce of what leaves the unit, per sequence."""
    if tp == 1:
        return 0.0
    rate = topology.inside_bytes_per_s(pool, -(-tp // pool.chips_per_host), beside=min(tp, pool.chips_per_host))
    return 2 * (tp - 1) / tp * unit.boundary_bytes / rate + topology.kernels.ring_s / micro_batch


def units_time(
    times: Times, workload: Workload, pool: str, tp: int, units: Sequence[int], micro_batch: int = 1
) -> UnitTime:
    """Of several units on one stage, per sequence of a micro-batch of so many."""
    each = [times.lookup(pool, tp, workload.units[u].kind, micro_batch) for u in units]
    return UnitTime(*(sum(seconds) for seconds in zip(*each, strict=True))) if each else UnitTime(0.0, 0.0)


def model_time(times: Times, workload: Workload, pool: str, tp: int, micro_batch: int = 1) -> float:
    """Forward and backward of the whole model on one tensor-parallel group, seconds per sequence of a micro-batch of so
    many."""
    return units_time(times, workload, pool, tp, range(len(workload.units)), micro_batch).total_s


def transfer_s(link: LinkSpec, bytes_: float) -> float:
    """One message over an idle link: a hop."""
    return link.latency_s + bytes_ / link.bytes_per_s


def update_s(chip: ChipSpec, workload: Workload, stage: StagePlan) -> float:
    """The optimizer step over what a stage owns."""
    return sum(workload.units[u].trained for u in stage.owned_units()) / updates_per_s(chip, stage)


def updates_per_s(chip: ChipSpec, stage: StagePlan) -> float:
    """Parameters that a stage's chips update together, bound by memory: each chip's, or its share of its host's."""
    rate = chip.host_bytes_per_s if stage.optimizer == "host" else chip.memory_bytes_per_s
    return stage.tp * rate / UPDATE_BYTES
