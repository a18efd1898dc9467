"""Gradients to their owners, parameters back to every copy (law 9).

The owner adds up what each copy contributes, in pipeline order and float32, so the result depends neither on arrival
nor on who computed it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from bridge.rank import RankId
from bridge.reshard import Placement, Reshard, copies
from hetero.engine.flow import Carriers, Flow
from hetero.engine.ownership import Holding, position_of

PARAMETERS = "parameters"


@dataclass(frozen=True)
class _Contribution:
    """One summand of a tensor's gradient."""

    holding: Holding
    source: Placement


class GradientRoute:
    """The gradients of all tensors that have the same copies and owner: one flow per copy."""

    def __init__(self, carriers: Carriers, number: int, tensors: list[Holding]) -> None:
        self.tensors = tensors
        self._me = carriers.me
        self._flows: list[tuple[list[_Contribution], Flow]] = []
        for index in range(len(tensors[0].copies)):
            parts = [_Contribution(h, source) for h in tensors for source in h.contributions(h.copies[index])]
            plans = [Reshard(copies(part.source, part.holding.owners), ()) for part in parts]
            shapes = [_shape(part.holding.owners, self._me) for part in parts]
            flow = Flow(carriers, "sync", f"route{number}.{index}", plans, shapes, torch.float32, window=1)
            self._flows.append((parts, flow))
        self._pending = self.local_chunks

    @property
    def local_chunks(self) -> set[int]:
        """The chunks of this rank whose backward passes must end before the route may be sent."""
        found: set[int] = set()
        for copy in self.tensors[0].copies:
            if self._me in copy.placement.ranks:
                found |= copy.chunks
        return found

    @property
    def owned(self) -> bool:
        return any(self._me in holding.owners.ranks for holding in self.tensors)

    def begin(self) -> None:
        self._pending = self.local_chunks
        for _, flow in self._flows:
            flow.begin(1)

    def chunk_done(self, chunk: int, gradients: dict[str, torch.Tensor]) -> None:
        """Sends the route once the last of its chunks is done. `gradients` are float32 sums of this rank's shards."""
        if chunk not in self._pending:
            return
        self._pending = self._pending - {chunk}
        if self._pending:
            return
        for parts, flow in self._flows:
            mine = [gradients[p.holding.name] if self._me in p.source.ranks else None for p in parts]
            if any(gradient is not None for gradient in mine):
                flow.send(mine)

    def sums(self) -> dict[str, torch.Tensor]:
        """The gradients of the tensors owned here, summed over copies. Blocks until all are in."""
        sums: dict[str, torch.Tensor] = {}
        for parts, flow in self._flows:
            if not self.owned:
                continue
            for part, gradient in zip(parts, flow.receive(), strict=True):
                if gradient is not None:
                    name = part.holding.name
                    sums[name] = gradient if name not in sums else sums[name] + gradient
        return sums

    def drain(self) -> None:
        for _, flow in self._flows:
            flow.drain()


class ParameterReturn:
    """The owners' parameters to every other copy, in the precision that the copies compute in."""

    def __init__(
        self, carriers: Carriers, tensors: list[Holding], parameters: dict[str, torch.Tensor], dtype: torch.dtype
    ) -> None:
        self._me = carriers.me
        self._targets = [(holding, copy.placement) for holding in tensors for copy in holding.copies]
        plans = [Reshard(copies(holding.owners, placement), ()) for holding, placement in self._targets]
        shapes = [_shape(placement, self._me) for _, placement in self._targets]
        self._into = [
            parameters[holding.name].detach() if self._me in placement.ranks else None
            for holding, placement in self._targets
        ]
        self._flow = Flow(carriers, "sync", PARAMETERS, plans, shapes, dtype, window=1)

    def begin(self) -> None:
        self._flow.begin(1)

    def run(self, owned: dict[str, torch.Tensor]) -> None:
        """`owned` are the updated shards in the working precision. Blocks until this rank's copies are up to date."""
        self._flow.send([owned.get(h.name) if self._me in h.owners.ranks else None for h, _ in self._targets])
        self._flow.receive(self._into)
        self._flow.drain()


def routes(carriers: Carriers, tensors: Iterable[Holding]) -> list[GradientRoute]:
    """The model's routes, in model order; every rank makes all of them alike."""
    return [GradientRoute(carriers, number, group) for number, group in enumerate(_by_route(tensors))]


def sync_flows(tensors: Iterable[Holding]) -> list[str]:
    """The names of the flows of gradients and parameters."""
    numbered = enumerate(_by_route(tensors))
    return [f"route{number}.{copy}" for number, group in numbered for copy in range(len(group[0].copies))] + [
        PARAMETERS
    ]


def _by_route(tensors: Iterable[Holding]) -> list[list[Holding]]:
    groups: dict[tuple[tuple[int, int], ...], list[Holding]] = {}
    for holding in tensors:
        groups.setdefault(holding.route, []).append(holding)
    return list(groups.values())


def _shape(placement: Placement, rank: RankId) -> tuple[int, ...] | None:
    position = position_of(placement, rank)
    return None if position is None else placement.layout.local_shape(position)
