"""What a chip does in a second of what units are made of: products, copies, updates, and collectives of its groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch.optim.adamw import adamw

from backends.backend import Stopwatch
from backends.cpu import CpuBackend
from backends.emulation import Emulated
from balancer.cost.times import UPDATE_BYTES
from balancer.cost.topology import PoolSpec
from bridge.words.channel import SYNC_BUCKET_BYTES
from hetero.engine.calibration import group_of, limits_of
from hetero.engine.expected import topology_of
from hetero.engine.passes import fill_with_noise
from hetero.engine.repeats import Repeats, repeat, spread
from hetero.engine.step.stage import DTYPES
from hetero.engine.world import World
from hetero.layers.group import TensorGroup
from hetero.models.registry import architecture
from hetero.words.orders import Rate
from hetero.words.spec import CalibrationSpec

_COPIED_BYTES = 64 << 20
"""More than caches hold."""
_UPDATED = 4 << 20
"""Parameters, of 16 bytes each."""
_PACED_S = 0.02
"""Of one such on an emulated chip, which may be as slow as its scale says: of as much as takes so long."""
_SMALL = 256
"""Elements of a message that takes as long as an empty one."""
_FEWEST_TOKENS = 64


def measure_rates(spec: CalibrationSpec, world: World) -> list[Rate]:
    """Collective within the pool; index 0 speaks for all. Of an emulated chip those that its speed is hidden in, as far
    as it can be paced to them, and the sums of its groups, which nobody paces; its host is paced as its sheet says."""
    measured = _RatedChip(spec, world)
    rows = measured.of_chip()
    for tp in spec.tensor_parallel[world.rank.pool]:
        group = group_of(world, tp)
        if world.rank.index < world.size // tp * tp:
            rows += measured.of_group(group)
    world.end_epoch()
    return [row for row in rows if row is not None] if world.rank.index == 0 else []


@dataclass(frozen=True)
class _RatedChip:
    spec: CalibrationSpec
    world: World

    @cached_property
    def _pool(self) -> PoolSpec:
        return topology_of(self.spec.pools, self.spec.precisions).pool(self.world.rank.pool)

    @property
    def _emulated(self) -> bool:
        return isinstance(self.world.backend, Emulated)

    @property
    def _dtype(self) -> torch.dtype:
        return DTYPES[self._pool.precision]

    def of_chip(self) -> list[Rate | None]:
        """Of one, while all others do the same."""
        rate, size = self._pool.chip.memory_bytes_per_s, self._dtype.itemsize
        count = self._paced(_COPIED_BYTES // size, rate / (2 * size))
        source, target = fill_with_noise(self._new(count)), self._new(count)
        updated = self._paced(_UPDATED, rate / UPDATE_BYTES)
        update = _update(self._new(updated, dtype=torch.float32), self.world.backend.capabilities.fused_adamw)
        rows = [
            self._row("memory", (count,), 2 * size * count, rate, lambda: target.copy_(source)),
            self._row("update", (updated,), updated, rate / UPDATE_BYTES, update),
        ]
        return rows if self._emulated else [*rows, *self._of_host(source)]

    def _of_host(self, source: torch.Tensor) -> list[Rate | None]:
        backend, key = self.world.backend, (tuple(source.shape), source.nbytes, None)
        host = backend.beside(source, self._dtype)
        update = _update(torch.zeros(_UPDATED), CpuBackend.capabilities.fused_adamw)
        return [
            self._row("to_host", *key, lambda: backend.copy_out(source, host).wait()),
            self._row("from_host", *key, lambda: backend.copy_in(host, source).wait()),
            self._row("host_update", (_UPDATED,), _UPDATED, None, update),
        ]

    def of_group(self, group: TensorGroup) -> list[Rate | None]:
        """Of each chip's part of the model's products where a group has that size, and of the group's sums."""
        rows = [self._product(shape, group.size) for shape in self._shapes(group.size)]
        return rows if group.size == 1 else [*rows, self._all_reduce(group)]

    def _product(self, shape: tuple[int, int, int], tp: int) -> Rate | None:
        tokens, inputs, outputs = shape
        x, weight, made = self._new(tokens, inputs), self._new(inputs, outputs), self._new(tokens, outputs)
        fill_with_noise(x)
        fill_with_noise(weight)
        flops = 2.0 * tokens * inputs * outputs
        return self._row("products", shape, flops, self._pool.flops_per_s, partial(torch.mm, x, weight, out=made), tp)

    def _shapes(self, tp: int) -> list[tuple[int, int, int]]:
        """(tokens, inputs, outputs), of fewer tokens where the host computes."""
        model, most = architecture(self.spec.model, self.spec.tuning), limits_of(self.world.backend).flops / 20
        tensors = (spec for unit in range(len(model.units)) for spec in model.tensors(unit, tp).values())
        matrices = sorted({shape for spec in tensors if len(shape := spec.layout.local_shape(0)) == 2})
        tokens = self.spec.seq_len * self.spec.micro_batch
        return [
            (int(max(_FEWEST_TOKENS, min(tokens, most / (inputs * outputs)))), inputs, outputs)
            for outputs, inputs in matrices
        ]

    def _all_reduce(self, group: TensorGroup) -> Rate | None:
        """Of what leaves a unit, or a bucket of gradients where that is more: how fast bytes go, not how soon."""
        width = max(architecture(self.spec.model).boundary.values())
        bucket, leaves = SYNC_BUCKET_BYTES // self._dtype.itemsize, self.spec.seq_len * self.spec.micro_batch * width
        sent, small = self._new(max(bucket, leaves)), self._new(_SMALL)
        rows = (
            self._row("all_reduce", tuple(x.shape), x.nbytes, None, partial(group.all_reduce_sum, x), group.size)
            for x in (sent, small)
        )
        whole, least = rows
        return replace(whole, latency_s=small.nbytes / least.per_s) if whole and least else None

    def _row(
        self,
        part: str,
        shape: tuple[int, ...],
        amount: float,
        expected_per_s: float | None,
        once: Callable[[], object],
        tp: int = 1,
    ) -> Rate | None:
        """None where an emulated chip could not keep its pace."""
        took = self._took(once, amount / expected_per_s if expected_per_s else None)
        if took is None or took.middle <= 0:
            return None
        per_s = amount * (self.spec.time_scale or 1.0) / took.middle
        return Rate(self._pool.name, part, tp, shape, per_s, 0.0, len(took.seconds), spread([took]))

    def _took(self, once: Callable[[], object], expected_s: float | None) -> Repeats | None:
        backend, told_s = self.world.backend, None
        if self._emulated and expected_s is not None and self.spec.time_scale is not None:
            told_s = expected_s * self.spec.time_scale

        def timed() -> tuple[Stopwatch]:
            watch = backend.start(told_s)
            once()
            watch.stop()
            return (watch,)

        found = repeat(timed, self.spec.repeats)
        return found[0] if found else None

    def _paced(self, most: int, per_s: float) -> int:
        """As many as an emulated chip is to be asked for."""
        return max(1, min(most, int(per_s * _PACED_S / (self.spec.time_scale or 1.0)))) if self._emulated else most

    def _new(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype or self._dtype, device=self.world.backend.device)


def _update(master: torch.Tensor, fused: bool) -> Callable[[], None]:
    """AdamW's of one tensor, with what belongs to it."""
    gradient, first, second = (torch.zeros_like(master) for _ in range(3))
    steps = torch.ones((), device=master.device if fused else "cpu")

    def once() -> None:
        adamw(
            [master], [gradient], [first], [second], [], [steps],
            foreach=not fused, fused=fused, amsgrad=False, beta1=0.9, beta2=0.95, lr=1e-3,
            weight_decay=0.1, eps=1e-8, maximize=False,
        )  # fmt: skip

    return once
