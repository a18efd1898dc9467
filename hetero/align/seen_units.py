"""What the units of one rank gave in a step, and the gradients that they were given, as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from balancer.plan.plan import Plan, stage_ranks
from bridge.rank import RankId
from hetero.align.shards import Shards

VALUE, GRADIENT, OPERATOR = "value", "gradient", "operator "
"""Of what is seen of a unit; the last is followed by the operator's name."""


def key(unit: int, micro_batch: int, what: str) -> str:
    """The name of a tensor in the file."""
    return f"{unit}/{micro_batch}/{what}"


def path_of(folder: Path, rank: RankId) -> Path:
    """The rank's file."""
    return folder / f"units-{rank.pool}-{rank.index}.safetensors"


def write_seen(folder: Path, rank: RankId, seen: Mapping[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in seen.items()}, path_of(folder, rank))


class SeenStep:
    """What all ranks of a plan wrote."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._plan = plan
        ranks = {rank for (p, s), _ in plan.stages() for rank in stage_ranks(plan, p, s)}
        self._files = {rank: load_file(path_of(folder, rank)) for rank in ranks}

    def shards(self, unit: int, what: str) -> Shards:
        """Of all samples."""
        return Shards([
            [self._files[rank][key(unit, number, what)] for rank in ranks]
            for pipeline, ranks in self._holders(unit)
            for number in range(self._plan.pipelines[pipeline].micro_batches)
        ])  # fmt: skip

    def operators(self, unit: int) -> dict[str, Shards]:
        """By name, those that all ranks saw."""
        begin = key(unit, 0, OPERATOR)
        known = [
            {name.removeprefix(begin) for name in self._files[rank] if name.startswith(begin)}
            for _, ranks in self._holders(unit)
            for rank in ranks
        ]
        return {name: self.shards(unit, OPERATOR + name) for name in sorted(set.intersection(*known))}

    def computed_by(self, unit: int) -> str:
        """In words, by pipeline."""
        stages = (
            stage for _, stage in self._plan.stages() if any(first <= unit < end for first, end in stage.units)
        )  # fmt: skip
        return " + ".join(dict.fromkeys(f"{stage.pool} tp {stage.tp}" for stage in stages))

    def _holders(self, unit: int) -> list[tuple[int, tuple[RankId, ...]]]:
        """Each pipeline, and the ranks of its stage that has the unit."""
        return [
            (pipeline, stage_ranks(self._plan, pipeline, number))
            for (pipeline, number), stage in self._plan.stages()
            if any(first <= unit < end for first, end in stage.units)
        ]
