"""A unit: the smallest piece of a model that a stage can hold, made of parts. Torch-free."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from balancer.cost.workload import NO_BYTES, TpBytes, UnitWork
from balancer.plan.recompute import Recompute
from hetero.layers.spec import TensorSpec
from hetero.models.adapter import Adapter, is_adapter
from hetero.models.parts.part import Part, PartWork
from hetero.models.recomputed_work import full_work, selective_work
from hetero.models.tuned_work import tuned_work

STREAM, LOSS = "x_BTD", "loss"
"""Of what units give: the residual stream, and the sum of the token losses."""


@dataclass(frozen=True)
class Unit:
    """Parts one after another; where `residual`, what came in is added to their result, times `scale`, which is called
    `gives`.

    `branches` are numbers of parts. At each begins a branch that is given what the parts before the first branch make
    of what came in; their results are added up.
    Units of a kind are alike. `ties` names tensors that are another unit's own: by their name within this unit, the
    other's number and the name there. `adapters` stand beside products, by the name of their weight; `frozen` are those
    of its tensors that do not train, beside those that never do.
    """

    kind: str
    parts: tuple[Part, ...]
    residual: bool = False
    gives: str = STREAM
    ties: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    branches: tuple[int, ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        names = [spec.name for part in self.parts for spec in part.tensors(1)]
        if len(names) > len(set(names)) or not self.ties.keys() <= set(names):
            rule = f"tensors must have names of their own, and ties be some of them: {names}, {list(self.ties)}"
            raise ValueError(f"unit {self.kind!r}: {rule}")

    def tensors(self, tp: int, sequence_parallel: bool = False, spread: bool = False) -> dict[str, TensorSpec]:
        """By name within the unit, laid out over a legal number of ranks. Where these have rows of the stream, each
        makes of the tensors that are used there a share of the gradient; where experts are spread, each has some of
        them whole."""
        found = (
            _summed(spec) if sequence_parallel and spec.by_rows else spec
            for part in self.parts
            for spec in (part.spread_tensors(tp) if spread else part.tensors(tp))
        )
        all_ = (one for spec in found for one in (spec, *self._adapters_of(spec)))
        return {spec.name: replace(spec, trains=spec.trains and spec.name not in self.frozen) for spec in all_}

    @property
    def multiplied(self) -> tuple[str, ...]:
        """The weights that may have adapters, by their name within the unit."""
        return tuple(name for part in self.parts for name in part.multiplied())

    def _adapters_of(self, weight: TensorSpec) -> tuple[TensorSpec, ...]:
        return self.adapters[weight.name].tensors(weight) if weight.name in self.adapters else ()

    def recomputed(self, asked: Recompute) -> Recompute:
        """What is done where a plan asks for something: a unit without an input keeps nothing, and one that makes the
        loss keeps little more than its input once its norm is made again."""
        if self.gives == LOSS:
            return "selective" if asked == "full" else asked
        return asked if self.residual or self.parts[0].is_layer else "none"

    def work(self, seq_len: int, size: int, boundary_bytes: int, packed: bool = False) -> UnitWork:
        """What it costs where an element of an activation has `size` bytes and what it gives has `boundary_bytes`, of
        samples of several documents where they are `packed`.

        The first part's input is what another unit gave. Backward comes to that part last, when only what tp
        does not divide is still there. Tied tensors count with their own unit, as `Workload.tied` asks. Of branches
        that begin with a norm of what came in, all keep one tensor.
        """
        specs = self.tensors(1)
        works = self._works(specs, seq_len, size)
        if packed:
            works = [replace(work, kept=work.kept + work.packed) for work in works]
        steps, alike = self._steps(works), sum(works[number].from_input_bytes for number in self.branches[1:])
        plain = self._plain_work(specs, works, alike, boundary_bytes)
        narrow = seq_len * size * sum(adapter.rank for adapter in self.adapters.values())
        made = {
            "none": plain,
            "selective": selective_work(plain, steps, alike, size),
            "full": full_work(plain, works, size, narrow),
        }
        return replace(plain, recomputed={asked: made[self.recomputed(asked)] for asked in ("selective", "full")})

    def _plain_work(
        self, specs: Mapping[str, TensorSpec], works: Sequence[PartWork], alike: int, boundary_bytes: int
    ) -> UnitWork:
        """Where no more is made again than its parts do anyway."""
        elements = {name: math.prod(spec.layout.shape) for name, spec in specs.items()}
        own = {name: count for name, count in elements.items() if name not in self.ties}
        trained = {name: count for name, count in elements.items() if specs[name].trains}
        gathered, kept = sum(work.input_bytes for work in works), sum((work.kept for work in works), NO_BYTES)
        whole = kept.whole + gathered - alike
        return UnitWork(
            kind=self.kind,
            forward_flops=sum(work.forward_flops for work in works),
            parameters=sum(own.values()),
            frozen=sum(own[name] for name in own.keys() - trained.keys()),
            undivided=sum(count for name, count in trained.items() if is_adapter(name)),
            activation_bytes=whole + kept.split,
            boundary_bytes=boundary_bytes,
            tp_collectives=sum(work.collectives for work in works),
            whole_bytes=whole,
            gathered_bytes=gathered,
            last_bytes=works[0].backward.whole,
            forward_bytes=max(work.forward_bytes for work in works) + (boundary_bytes if self.branches else 0),
            backward_bytes=_backward_bytes(works),
            largest_tensor=min(max(trained.values(), default=0), max(part.largest_weight for part in self.parts)),
            remade=TpBytes(sum(work.remade_bytes for work in works)),
            remade_flops=sum(work.remade_flops for work in works),
            weight_flops=sum(work.weight_flops for work in works),
            frozen_flops=sum(work.frozen_flops for work in works),
            pairs=sum((work.pairs for work in works), NO_BYTES),
            masks=dict(ChainMap(*(dict(work.masks) for work in works))),
            plain_masks=dict(ChainMap(*(dict(work.plain_masks) for work in works))),
        )

    def _steps(self, works: Sequence[PartWork]) -> list[tuple[PartWork | None, PartWork]]:
        """Each part with the one whose result it reads, None where that is what came in."""
        first = self.branches[0] if self.branches else 0
        before = [(first if number in self.branches else number) - 1 for number in range(len(works))]
        return [(works[at] if at >= 0 else None, work) for at, work in zip(before, works, strict=True)]

    def _works(self, specs: Mapping[str, TensorSpec], seq_len: int, size: int) -> list[PartWork]:
        """Of all parts; branches that read one tensor keep it once."""
        works = [tuned_work(part, specs, self.adapters, seq_len, size) for part in self.parts]
        for number in self.branches[1:]:
            works[number] = replace(works[number], input_bytes=0)
        return works


def _summed(spec: TensorSpec) -> TensorSpec:
    return replace(spec, layout=replace(spec.layout, gradients="summed"))


def _backward_bytes(works: Sequence[PartWork]) -> int:
    """What the parts' backwards need beside all that is kept at first, of which those behind a part have let go."""
    gone = most = 0
    for work in reversed(works[1:]):
        most = max(most, work.backward.split + work.backward.whole - gone)
        gone += work.backward_reads_bytes
    return max(most, works[0].backward.split - gone)
