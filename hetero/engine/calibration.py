"""A short measurement before the plan: what each kind of unit takes on this pool's chips, all chips at work at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from statistics import median

import torch
import torch.distributed as dist

from backends.backend import Backend, Stopwatch
from backends.emulation import Emulated
from balancer.cost.times import datasheet_times
from hetero.engine.expected import topology_of
from hetero.engine.products import Products
from hetero.engine.step.stage import DTYPES, ChunkModule
from hetero.engine.trial import Limits, Trial
from hetero.engine.world import World
from hetero.layers.group import TensorGroup
from hetero.layers.weight_gradients import WeightGradients
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.models.unit_module import build_unit
from hetero.words.orders import TimedUnit
from hetero.words.spec import CalibrationSpec

_SPREAD = 0.02
"""Of weights, about as models begin with."""
_HOST_LIMITS = Limits(flops=1e10, bytes=256e6)
"""Where the host computes: half a second of a core, and what several ranks of a small machine may have at once."""
_BLOCK = (1 << 18) + 1
"""Values that are made; odd, so that no two rows of a matrix are equal soon."""


def calibrate(spec: CalibrationSpec, world: World) -> list[TimedUnit]:
    """One row per kind of unit and tensor-parallel size: seconds per sequence, median of the repeats.

    With a `time_scale`, seconds are those of the emulated chip; without, real ones. What an emulated chip cannot be
    paced to, since computing it here takes longer, is left out. Collective within the pool; index 0 speaks for all.
    """
    me, rows, limits = world.rank, [], _limits(world.backend)
    for tp in spec.tensor_parallel[me.pool]:
        group = TensorGroup()
        for first in range(0, world.size - tp + 1, tp) if tp > 1 else ():
            made = world.communicator(f"calibration with tp {tp}", range(first, first + tp))
            group = TensorGroup(tp, me.index - first, made) if made is not None else group
        if group.communicator is not None:
            group.communicator.meet()
        dist.all_reduce(torch.zeros(1))  # all begin at once
        if me.index < world.size // tp * tp:
            rows += _unit_rows(spec, world, tp, group, limits)
    world.end_epoch()
    return rows if me.index == 0 else []


def _unit_rows(spec: CalibrationSpec, world: World, tp: int, group: TensorGroup, limits: Limits) -> list[TimedUnit]:
    units = architecture(spec.model, spec.tuning).units
    kinds = {unit.kind: index for index, unit in reversed(list(enumerate(units)))}
    asked = tp, spec.precisions[world.rank.pool], spec.micro_batch, spec.seq_len, spec.tuning, spec.packed
    whole = {kind: Trial(spec.model, kind, *asked) for kind in kinds}
    rows = (_unit_row(spec, world, group, whole[kind], limits, index) for kind, index in kinds.items())
    return [row for row in rows if row is not None]


def _unit_row(
    spec: CalibrationSpec, world: World, group: TensorGroup, whole: Trial, limits: Limits, index: int
) -> TimedUnit | None:
    backend, trial, dtype = world.backend, whole.within(limits), DTYPES[whole.precision]
    weight_gradients = WeightGradients(backend.operators.add_product)
    common = group, backend.operators, dtype, backend.device, 0, False, None, weight_gradients
    unit = ChunkModule(index, [build_unit(trial.model, index, *common, tuning=trial.tuning)], weight_gradients)
    for parameter in unit.parameters():
        fill_with_noise(parameter.data, _SPREAD)
    expected, expected_whole = _expected(spec, world, trial), _expected(spec, world, whole)
    batch = _batch(trial).to(backend.device)
    passes = [_once(world, unit, trial, batch, expected) for _ in range(spec.repeats + 1)][1:]
    if any(watch.overrun for watches in passes for watch in watches):
        return None
    told = zip(expected, expected_whole, trial.shares_of(whole), strict=True)
    shares = [part / all_ if part and all_ else share for part, all_, share in told]
    scale = spec.micro_batch * (spec.time_scale or 1.0)
    took = [median(watches[i].seconds() for watches in passes) for i in (0, 1)]
    forward, backward = (seconds / share / scale for seconds, share in zip(took, shares, strict=True))
    products = None
    if spec.time_scale is not None and not isinstance(backend, Emulated):
        products = (forward + backward) * _part_of_products(world, unit, trial, batch, sum(took))
    return TimedUnit(world.rank.pool, whole.tp, whole.kind, forward, backward, products)


def _part_of_products(world: World, unit: ChunkModule, trial: Trial, batch: Batch, seconds: float) -> float:
    """Of a forward with its backward that takes so long. On a chip that waits for its host they may seem longer."""
    with Products(world.backend) as products:
        _once(world, unit, trial, batch, (None, None))
    return min(1.0, products.seconds / seconds) if seconds > 0 else 0.0


def _limits(backend: Backend) -> Limits:
    """A chip has the time, and memory for what it trains later, on more chips perhaps. All of a pool keep the limits of
    the one with the least, for they measure together."""
    if backend.device.type == "cpu":
        return _HOST_LIMITS
    usable_bytes = torch.tensor(float(backend.usable_bytes() or backend.memory().limit_bytes), dtype=torch.float64)
    dist.all_reduce(usable_bytes, dist.ReduceOp.MIN)
    return Limits(inf, usable_bytes.item() / 8)


def _once(
    world: World, unit: ChunkModule, trial: Trial, batch: Batch, expected: Sequence[float | None]
) -> tuple[Stopwatch, Stopwatch]:
    """The forward and the backward of the trial's sequences."""
    backend, sizes = world.backend, architecture(trial.model).boundary
    shape = trial.sequences, trial.seq_len
    inputs = {
        name: fill_with_noise(
            torch.empty((*shape, size), dtype=DTYPES[trial.precision], device=backend.device)
        ).requires_grad_()
        for name, size in sizes.items()
    }
    forward = backend.start(expected[0])
    outputs = unit(inputs, batch)
    forward.stop()
    gradients = [fill_with_noise(torch.empty_like(output)) for output in outputs.values()]
    back = backend.start(expected[1])
    unit.differentiate(list(outputs.values()), gradients)
    back.stop()
    return forward, back


def _batch(trial: Trial) -> Batch:
    """One for all passes: masks are made in the first, which does not count, as the other layers of a run find them."""
    shape = trial.sequences, trial.seq_len
    tokens_BT = torch.randint(trial.model.vocab, shape, generator=torch.Generator().manual_seed(0))
    if not trial.packed:
        return Batch(tokens_BT, tokens_BT)
    return Batch(tokens_BT, tokens_BT, torch.arange(trial.seq_len).expand(shape), torch.zeros_like(tokens_BT))


def fill_with_noise(tensor: torch.Tensor, spread: float = 1.0) -> torch.Tensor:
    """Fills a new tensor with normal values and returns it: chips compute faster and cooler on equal ones.

    A block of them again and again, at the speed of the chip's memory. Equal on all ranks of a tensor-parallel group.
    """
    flat = tensor.view(-1)
    made = torch.Generator().manual_seed(0)
    block = torch.randn(min(_BLOCK, flat.numel()), generator=made).mul_(spread).to(tensor.device, tensor.dtype)
    for part in flat.split(_BLOCK):
        part.copy_(block[: part.numel()])
    return tensor


def _expected(spec: CalibrationSpec, world: World, trial: Trial) -> tuple[float | None, float | None]:
    if spec.time_scale is None or not isinstance(world.backend, Emulated):
        return None, None
    pool, model = world.rank.pool, trial.model
    workload = architecture(model, trial.tuning).workload(trial.seq_len, trial.sequences, trial.precision)
    unit = datasheet_times(topology_of(spec.pools, spec.precisions), workload).lookup(pool, trial.tp, trial.kind)
    scale = trial.sequences * spec.time_scale
    return unit.forward_s * scale, unit.backward_s * scale
