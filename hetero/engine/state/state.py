"""A rank's part of what a run has learnt. It belongs to the rank; an epoch is given it, and works on it in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.engine.state.loss_scale import LossScale
from hetero.engine.state.ownership import Holding
from hetero.engine.state.routes import PARAMETER, VALUE, Key

Tensors = dict[str, torch.Tensor]
Places = Mapping[str, tuple[TensorLayout, int]]
"""Of each tensor held here: its layout and this rank's position in it."""
Blank = Callable[[torch.Tensor], torch.Tensor]
"""Makes float32 memory of a tensor's shape, of any content."""


@dataclass
class State:
    """`step` steps are done, `updates` of them were not skipped; the data position follows from `step`.

    `values` are the shards that the rank computes with, in its pool's precision. Of those that it owns, `masters` are
    the truth in float32, where a value is its own master, and `moments` the optimizer's, once there was an update. A
    plan may have these two lie in host memory: then no value is its own master. What is `frozen` and owned here has
    neither.
    """

    step: int
    loss_scale: LossScale
    updates: int = 0
    places: dict[str, tuple[TensorLayout, int]] = field(default_factory=dict)
    values: Tensors = field(default_factory=dict)
    masters: Tensors = field(default_factory=dict)
    moments: dict[str, Tensors] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        tensors: Mapping[Key, torch.Tensor],
        places: Mapping[str, tuple[TensorLayout, int]],
        owned: Iterable[str],
        frozen: Iterable[str] = (),
        *,
        step: int,
        updates: int,
        loss_scale: LossScale,
    ) -> State:
        """What `keyed` gave of one."""
        state = cls(step, loss_scale, updates, dict(places), frozen=tuple(frozen))
        state.values = {
            name: tensors[key if (key := Key(name, VALUE)) in tensors else Key(name, PARAMETER)] for name in places
        }
        state.masters = {name: tensors[Key(name, PARAMETER)] for name in owned}
        for (name, kind), tensor in tensors.items():
            if kind not in (PARAMETER, VALUE):
                state.moments.setdefault(name, {})[kind] = tensor
        return state

    def keyed(self) -> dict[Key, torch.Tensor]:
        """Every tensor, once; but of a float32 value its equal master in host memory."""
        wide = {name: value for name, value in self.values.items() if value.dtype == torch.float32}
        narrow = {Key(name, VALUE): value for name, value in self.values.items() if name not in wide}
        moments = {Key(name, kind): moment for name, kinds in self.moments.items() for kind, moment in kinds.items()}
        return {Key(name, PARAMETER): tensor for name, tensor in (self.masters | wide).items()} | narrow | moments

    def owned(self) -> dict[str, Tensors]:
        """Per tensor that is owned here: its master ("parameter") and its moments, or the value that does not
        change."""
        trained = {name: {PARAMETER: master, **self.moments.get(name, {})} for name, master in self.masters.items()}
        return trained | {name: {PARAMETER: self.values[name]} for name in self.frozen}

    def restore(self, name: str, values: Mapping[str, torch.Tensor]) -> None:
        """Puts back what `owned` gave of a tensor."""
        master = self.masters[name]
        master.copy_(values[PARAMETER])
        kinds = sorted(values.keys() - {PARAMETER})
        # Fused updates trust moments to lie in memory as their masters do; what a file gives may be a view of more.
        self.moments[name] = {kind: torch.empty_like(master).copy_(values[kind]) for kind in kinds}

    def make_masters(self, names: Iterable[str], blank: Blank | None = None) -> None:
        """Of these tensors, from the values; in memory of their own, if `blank` makes it."""
        for name in names:
            value = self.values[name]
            self.masters[name] = value.to(torch.float32) if blank is None else blank(value).copy_(value)

    def to_host(self, blank: Blank) -> None:
        """Masters and moments that are not there yet go to host memory of their own."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor if tensor.device.type == "cpu" else blank(tensor).copy_(tensor)

        for name, master in self.masters.items():
            self.masters[name] = blank(master).copy_(master) if master is self.values[name] else moved(master)
        for kinds in self.moments.values():
            kinds.update({kind: moved(moment) for kind, moment in kinds.items()})


def places_of(tensors: Iterable[Holding], me: RankId) -> dict[str, tuple[TensorLayout, int]]:
    """Which parts a rank holds."""
    found = {}
    for holding in tensors:
        for holder in holding.holders:
            if me in holder.placement.regions:
                found[holding.name] = holder.placement.layout, holder.placement.ranks.index(me)
    return found


def owned_by(tensors: Iterable[Holding], me: RankId, trains: bool = True) -> list[str]:
    """The tensors of which a rank updates its part; or of the frozen ones, those of which it saves its part."""
    return [holding.name for holding in tensors if holding.trains == trains and me in holding.owners.ranks]
