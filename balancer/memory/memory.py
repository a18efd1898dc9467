"""How many bytes a stage needs on each of its chips. docs/design/memory.md says what is counted.

After Korthikanti et al., "Reducing activation recomputation in large transformer models": what tp divides is counted by
unit (`activation_bytes`), what it does not (a unit's input and its norm, whole on every rank unless the stage is
sequence-parallel) is its `whole_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import chain

from backends.chip import ChipSpec
from backends.registry import find_family
from backends.sizes import size_text
from balancer.cost.workload import GRADIENT_BYTES, UnitWork, Update, Workload
from balancer.memory.communicators import communicator_bytes
from balancer.memory.messages import Codecs, held_bytes, message_bytes, native_bytes, posted_bytes, uncoded
from balancer.memory.peak import (
    ChunkRoom,
    Left,
    Moment,
    UnitRoom,
    first_forwards_peak,
    fullest_moments,
    left_by,
    peak_of,
)
from balancer.memory.shadow import shadow_bytes
from balancer.memory.sync_memory import sync_memory
from balancer.memory.tied import parameters_with_tied, trained_with_tied
from balancer.plan.plan import Place, Plan, StagePlan, Ticks
from balancer.schedule.lowering import lowered, schedule_of
from bridge.precision import ITEM_BYTES
from bridge.words.channel import SYNC_BUCKET_BYTES

WEIGHT_BYTES = ITEM_BYTES
SLACK = 0.04
"""What torch's allocator keeps beyond its tensors, over these: 0.4, 0.8, 4.2 and 5.0% in reports of full chips
(vllm-project/vllm-ascend issues 1127 and 5020, hiyouga/LlamaFactory 5491, sgl-project/sglang 29838)."""
_STATE_BYTES = 4  # of a master, a moment or a temporary of the update


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes per chip when it is fullest. `sync` is what lies there to be summed or sent when all is computed, if the
    chip is fullest then, and `shadow` what another pool's unit needs, if it is fullest when it computes that again;
    `slack` is kept by torch's allocator, `communicators` by the collectives' library. `host` is no chip's memory, but
    what its host keeps for it."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    messages: int
    sync: int = 0
    communicators: int = 0
    host: int = 0
    shadow: int = 0

    @property
    def total(self) -> int:
        return self.tensors + self.slack + self.communicators

    @property
    def tensors(self) -> int:
        fullest = self.activations + self.sync + self.shadow
        return self.weights + self.gradients + self.optimizer + self.messages + fullest

    @property
    def slack(self) -> int:
        return round(SLACK * self.tensors)

    def __str__(self) -> str:
        unsaid = {"host", *(["shadow"] if not self.shadow else [])}
        parts = (*(part.name for part in fields(self) if part.name not in unsaid), "slack")
        listed = ", ".join(f"{part} {size_text(getattr(self, part))}" for part in parts)
        beside = f", and {size_text(self.host)} of its host's" if self.host else ""
        return f"{size_text(self.total)} ({listed}){beside}"


def stage_bytes(
    workload: Workload,
    plan: Plan,
    pipeline: int,
    stage: int,
    precision: str,
    chip: ChipSpec | None = None,
    bucket_bytes: int = SYNC_BUCKET_BYTES,
    codecs: Codecs = uncoded,
) -> MemoryNeed:
    """Of one stage of a completed plan; with the communicators of `chip`, if it is given.

    A chip is fullest while it computes, or after that, when gradients are summed or parameters go back, which they do
    until a step's first forwards; or between the two, if it computes another pool's units again. Float32 gradients are
    their own sums, which a step's first backwards make; the sums of narrower ones are always there."""
    workload = workload.at(precision)
    place, owner, placed = (pipeline, stage), plan.pipelines[pipeline], plan.pipelines[pipeline].stages[stage]
    weight_bytes = WEIGHT_BYTES[precision]
    narrow, sync = weight_bytes < GRADIENT_BYTES, sync_memory(workload, plan, place, weight_bytes, bucket_bytes)
    whole, owned_whole = (_undivided(workload, units) for units in (placed.unit_indices(), placed.owned_units()))
    held = _on_chip(sum(parameters_with_tied(workload, placed.unit_indices())), whole, placed.tp)
    owned = _on_chip(sum(workload.units[u].trained for u in placed.owned_units()), owned_whole, placed.tp)
    trained = sum(trained_with_tied(workload, placed.unit_indices()))
    gradients = _on_chip(trained, whole, placed.tp) * GRADIENT_BYTES
    rooms = dict(_rooms(workload, plan, place, weight_bytes, sync.rounds))
    ordered = schedule_of(owner, plan.schedule)
    inside = tuple(_inside(workload, plan, place).items())
    fullest = _fullest_moments(*ordered, stage, left_by(rooms), inside)
    back = {c.index: [sync.back.get(u, 0) for u in range(*c.units)] for c in owner.chunks() if c.index in rooms}
    beginning = first_forwards_peak(lowered(*ordered)[stage], rooms, back)
    computing = round(max(beginning, peak_of(fullest, rooms))) - (0 if narrow else gradients)
    on_chip = placed.optimizer == "chip"
    updating = owned * _updating_bytes(workload.update, chip) if on_chip else 0
    after = sync.after(updating, owned * _rounded_bytes(plan, precision))
    shadow = shadow_bytes(workload, plan, place, sync.summed)
    computes, shadows = computing >= max(after, shadow), shadow > max(computing, after)
    plain = 0 if workload.packed else _shared_bytes(workload.units[u].plain_masks for u in placed.unit_indices())
    return MemoryNeed(
        weights=held * weight_bytes,
        gradients=gradients,
        optimizer=owned * optimizer_bytes(precision, workload.update) if on_chip else 0,
        activations=plain + (computing if computes else 0),
        messages=message_bytes(workload, plan, place, precision, codecs),
        sync=0 if computes or shadows else after,
        communicators=communicator_bytes(workload, plan, place, chip) if chip else 0,
        host=0 if on_chip else owned * host_bytes(weight_bytes, workload.update),
        shadow=shadow if shadows else 0,
    )


@lru_cache(maxsize=256)
def _fullest_moments(
    name: str,
    placed: tuple[int, ...],
    micro_batches: int,
    warmups: tuple[int, ...],
    ticks: Ticks | None,
    stage: int,
    left: Left,
    inside: tuple[tuple[int, float], ...],
) -> Mapping[Moment, float]:
    """Of a stage that waits for messages from `inside` its pool. It is the same for whoever owns units."""
    lists = lowered(name, placed, micro_batches, warmups, ticks)
    return fullest_moments(lists[stage], left, posted_bytes(lists, stage, placed, dict(inside)))


def _rooms(
    workload: Workload, plan: Plan, place: Place, weight_bytes: int, rounds: Mapping[int, int]
) -> Iterator[tuple[int, ChunkRoom]]:
    """What the chunks of one stage need, by their number."""
    pipeline = plan.pipelines[place[0]]
    stage, chunks = pipeline.stages[place[1]], pipeline.chunks()
    tp = stage.tp
    for chunk in chunks:
        if chunk.stage != place[1]:
            continue
        made = zip(range(*chunk.units), trained_with_tied(workload, range(*chunk.units)), strict=True)
        units = tuple(
            _unit_room(
                workload.units[u].under(stage.recompute_of(u)),
                pipeline.micro_batch,
                stage,
                weight_bytes,
                _on_chip(trained, workload.units[u].undivided, tp),
                rounds.get(u, 0),
            )
            for u, trained in made
        )
        before, after = (held_bytes(workload, pipeline, i, stage) for i in (chunk.index - 1, chunk.index))
        masks = _shared_bytes(workload.units[u].masks for u in range(*chunk.units)) if workload.packed else 0
        yield (
            chunk.index,
            ChunkRoom(
                units=units,
                ends=pipeline.micro_batch * masks + after + (before if weight_bytes < GRADIENT_BYTES else 0),
                arriving=after,
            ),
        )


def _shared_bytes(masks: Iterable[Mapping[str, int]]) -> int:
    """What has one name counts once."""
    return sum(dict(chain.from_iterable(each.items() for each in masks)).values())


def _inside(workload: Workload, plan: Plan, place: Place) -> dict[int, float]:
    """What comes to each chip of a stage over the boundaries inside its pool, by boundary; its group gathers them."""
    pipeline = plan.pipelines[place[0]]
    tp = pipeline.stages[place[1]].tp
    return {boundary: nbytes / tp for boundary, nbytes in native_bytes(workload, pipeline).items()}


def _unit_room(
    unit: UnitWork, micro_batch: int, stage: StagePlan, weight_bytes: int, parameters: int, packed: int
) -> UnitRoom:
    tp, stream_parts = stage.tp, stage.tp if stage.sequence_parallel else 1
    narrow = weight_bytes < GRADIENT_BYTES
    straight = not narrow and unit.weight_flops > 0  # products add to float32 sums as they are made
    split = 2 if tp > 1 else 1  # its gradient is copied before ranks add up theirs
    kept, remade = unit.kept_bytes(tp, stream_parts), unit.remade.on_rank(tp)
    least = max(0.0, unit.kept_whole_bytes(stream_parts) + unit.last_bytes / stream_parts - kept)
    return UnitRoom(
        kept=micro_batch * kept,
        forward=micro_batch * (unit.boundary_bytes + unit.forward_bytes / tp),
        backward=micro_batch * (split * unit.boundary_bytes + max(remade + unit.backward_bytes / tp, least)),
        remade=micro_batch * remade,
        gradient=0 if straight else unit.largest_tensor * weight_bytes / tp,
        sums=0 if narrow else parameters * GRADIENT_BYTES,
        packed=packed,
        pairs=micro_batch * unit.pairs.on_rank(tp),
    )


def _undivided(workload: Workload, units: Iterable[int]) -> int:
    return sum(workload.units[u].undivided for u in units)


def _on_chip(parameters: int, undivided: int, tp: int) -> int:
    return (parameters + (tp - 1) * undivided) // tp


def optimizer_bytes(precision: str, update: Update) -> int:
    """Per owned parameter: the moments, and a float32 master value where weights are narrower."""
    return _STATE_BYTES * (update.moments + (precision != "float32"))


def host_bytes(weight_bytes: int, update: Update) -> int:
    """Per owned parameter whose optimizer lies in host memory: master, moments, the gradient that comes, and the value
    that goes back, which in float32 is the master."""
    return _STATE_BYTES * (2 + update.moments) + (weight_bytes if weight_bytes < GRADIENT_BYTES else 0)


def saved_bytes(workload: Workload, plan: Plan, pipeline: int, stage: int) -> int:
    """Of host memory, for a chip of a stage that saves beside its steps: its masters and moments once more, and
    frozen weights as they are."""
    placed = plan.pipelines[pipeline].stages[stage]
    units = [workload.units[u] for u in placed.owned_units()]
    trained = sum(unit.trained for unit in units) * _STATE_BYTES * (1 + workload.update.moments)
    frozen = sum(unit.frozen for unit in units) * WEIGHT_BYTES[str(placed.precision)]
    return (trained + frozen) // placed.tp


def _updating_bytes(update: Update, chip: ChipSpec | None) -> int:
    """Per owned parameter, while it is updated."""
    fused = chip is None or find_family(chip.family).fused_adamw
    return _STATE_BYTES * (update.temporaries if fused else update.unfused)


def _rounded_bytes(plan: Plan, precision: str) -> int:
    """Per owned parameter, on its way to pools that compute in something else than its own and float32."""
    others = {str(stage.precision) for _, stage in plan.stages()} - {precision, "float32"}
    return sum(WEIGHT_BYTES[other] for other in others)
