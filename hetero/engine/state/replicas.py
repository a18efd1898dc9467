"""Proof that copies of the parameters are still equal: one hash, the same under any layout (law 9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
import xxhash

from bridge.layout.layout import Region
from bridge.rank import RankId
from hetero.engine.state.ownership import Holding
from hetero.engine.step.totals import ROOM, Totals

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SLICE, _CACHED_SLICE = 1 << 22, 1 << 14
"""Elements that are widened to int64 at a time, or one row if that is longer: enough to keep a chip busy, and what a
core has at hand."""


class ReplicaDrift(Exception):
    """Copies of a parameter differ, though one owner updated them all."""

    def __init__(self, step: int, names: Sequence[str], places: str) -> None:
        self.key, self.value = "replicas", ", ".join(names)
        self.rule = f"after step {step} the copies held by {places} are no longer equal"
        self.remedy = "a chip or a link has changed bits: resume from a checkpoint, and look at those hosts first"
        super().__init__(f"{self.key}: {self.value}: {self.rule}; {self.remedy}")


class ReplicaCheck:
    """Compares all copies of all tensors. Every active rank of the job must call `compare` at the same steps.

    A shard's hash is a sum over its elements, so the shards of one cover (a copy, or one of its replicas) add up to the
    hash of the whole tensor. Covers are summed along lines that each take one cover of every tensor; all lines must be
    equal.
    """

    def __init__(self, tensors: Sequence[Holding], parameters: dict[str, torch.Tensor], me: RankId) -> None:
        self._parameters = parameters
        self._tensors = list(tensors)
        self._mine = [(h, _covers_of(h, me), _region(h, me)) for h in tensors]
        self._lines = max((len(_covers(h)) for h in tensors), default=1)

    def compare(self, step: int, totals: Totals) -> None:
        """Raises ReplicaDrift, on every rank alike, if any copy differs."""
        if self._lines == 1 or len(set(self._sums(self._mine, totals))) == 1:
            return
        units = sorted({holding.unit for holding in self._tensors})
        wrong = [unit for unit in units if len(set(self._sums(self._of_unit(unit), totals))) > 1]
        names = [h.name for h in self._tensors if h.unit in wrong[:1]]
        held_by = {holder.place for h in self._tensors if h.unit in wrong[:1] for holder in h.holders}
        places = ", ".join(f"pipeline {pipeline} stage {stage}" for pipeline, stage in sorted(held_by))
        raise ReplicaDrift(step, names or ["parameters"], places)

    def _of_unit(self, unit: int) -> list[tuple[Holding, list[int], Region | None]]:
        return [row for row in self._mine if row[0].unit == unit]

    def _sums(self, rows: Iterable[tuple[Holding, list[int], Region | None]], totals: Totals) -> list[int]:
        lines = np.zeros(self._lines, dtype=np.uint64)
        held = [(holding, covers, region) for holding, covers, region in rows if region is not None]
        for (holding, covers, _), value in zip(held, self._hashes(held), strict=True):
            count = len(_covers(holding))
            for line in range(self._lines):
                if line % count in covers:
                    lines[line : line + 1] += value
        parts = torch.from_numpy(lines.view(np.int64)).split(ROOM)
        return [number for part in parts for number in totals.sum(part).tolist()]

    def _hashes(self, held: Sequence[tuple[Holding, list[int], Region]]) -> np.ndarray:
        """Of each shard; the host waits for the chip once."""
        if not held:
            return np.zeros(0, dtype=np.uint64)
        sums = torch.stack([weighted_bits(self._parameters[holding.name], region) for holding, _, region in held])
        names = np.array([_name_key(holding.name) for holding, _, _ in held], dtype=np.uint64)
        return sums.cpu().numpy().view(np.uint64) * names


def shard_hash(name: str, shard: torch.Tensor, region: Region) -> np.uint64:
    """The sum over a shard's elements of bits times a key of the element's logical index, times the name's, mod 2^64.

    Keys are odd, so that no change of one bit is lost.
    """
    return np.uint64(weighted_bits(shard, region).cpu().numpy().view(np.uint64) * np.uint64(_name_key(name)))


@torch.no_grad()
def weighted_bits(shard: torch.Tensor, region: Region) -> torch.Tensor:
    """The shard's sum before its name comes in: an int64 scalar on the shard's device, the same on any.

    An element's key is the product of one key per dimension. So the chip only widens, multiplies and adds integers,
    which wrap alike on all chips in any order; needs 8 bytes for each element of a slice.
    """
    rows = torch.ones(1, dtype=torch.int64, device=shard.device)
    for dimension, (start, stop) in enumerate(reversed(region[:-1]), 1):
        rows = (_keys(dimension, start, stop, shard.device)[:, None] * rows).flatten()
    columns = _keys(0, *region[-1], shard.device) if region else rows
    integers = shard.detach().contiguous().view({2: torch.int16, 4: torch.int32}[shard.element_size()])
    table = integers.view(len(rows), len(columns))
    step = max(1, (_CACHED_SLICE if shard.is_cpu else _SLICE) // max(1, len(columns)))
    total = torch.zeros((), dtype=torch.int64, device=shard.device)
    for part, keys in zip(table.split(step), rows.split(step), strict=True):
        total += (part.to(torch.int64).mul_(columns).sum(-1) * keys).sum()
    return total


@lru_cache(maxsize=32)
def _keys(dimension: int, start: int, stop: int, device: torch.device) -> torch.Tensor:
    """Odd keys of the indices of one dimension, counted from the last."""
    index = np.arange(start, stop, dtype=np.uint64) + (np.uint64(dimension) << np.uint64(56))
    mixed = (index + np.uint64(1)) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _MIX
    return torch.from_numpy(((mixed ^ (mixed >> np.uint64(29))) | np.uint64(1)).view(np.int64)).to(device)


def _name_key(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode()) | 1


def _covers(holding: Holding) -> list[frozenset[RankId]]:
    """Sets of ranks that each hold the whole tensor once; whoever holds some of it is in one at least."""
    covers = []
    for holder in holding.holders:
        groups = holder.placement.layout.replica_groups()
        for replica in range(max(len(group) for group in groups)):
            chosen = (group[replica % len(group)] for group in groups)
            covers.append(frozenset(holder.placement.ranks[position] for position in chosen))
    return covers


def _covers_of(holding: Holding, me: RankId) -> list[int]:
    return [number for number, ranks in enumerate(_covers(holding)) if me in ranks]


def _region(holding: Holding, me: RankId) -> Region | None:
    for holder in holding.holders:
        if me in holder.placement.regions:
            return holder.placement.regions[me]
    return None
