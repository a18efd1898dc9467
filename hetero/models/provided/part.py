"""What a unit on transformers' own modules tells. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from balancer.cost.workload import TpBytes
from hetero.layers.spec import TensorSpec
from hetero.models.hf_model import HfModel
from hetero.models.parts.part import Part, PartWork
from hetero.models.provided.told import ToldBytes, ToldModel, ToldUnit

_MODULES = {"embedding": "ProvidedEmbedding", "layer": "ProvidedLayer", "head": "ProvidedHead"}


@dataclass(frozen=True)
class ProvidedPart(Part):
    """All of a unit: of a `model` of which so much is `told`, and of those of one `kind`."""

    model: HfModel
    told: ToldModel
    kind: str

    @cached_property
    def unit(self) -> ToldUnit:
        return next(unit for unit in self.told.kinds if unit.kind == self.kind)

    @property
    def module(self) -> str:  # type: ignore[override]
        return f"hetero.models.provided.unit_modules:{_MODULES[self.unit.role]}"

    @property
    def hidden(self) -> int:
        return self.told.hidden

    @property
    def gives(self) -> list[int]:
        """Of all layers."""
        return [unit.gives for number in self.told.units if (unit := self.told.kinds[number]).role == "layer"]

    @property
    def head_cut(self) -> bool:
        """Whether each rank makes logits of its own."""
        return any(tensor.cut is not None for tensor in self.unit.tensors)

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        return tuple(tensor.spec(tp) for tensor in self.unit.tensors)

    def work(self, seq_len: int, size: int) -> PartWork:
        """Of the square of attention, the half that a mask leaves."""
        work = self.unit.work
        split, whole = work.kept.get(size, ToldBytes()).at(seq_len)
        linear, square = work.flops
        stream = seq_len * size * self.hidden if self.unit.role != "embedding" else 0
        return PartWork(
            forward_flops=linear * seq_len + square * seq_len**2 / 2,
            collectives=work.collectives,
            kept=TpBytes(split, max(0, whole - stream)),
            input_bytes=stream,
            backward=TpBytes(split // 2, whole=2 * stream),
            weight_flops=work.products * seq_len,
            pairs=TpBytes(whole=work.pair * size * seq_len),
        )

    @property
    def refused(self) -> dict[str, str]:
        """None of them is possible without a view into a layer."""
        why = "the model runs on transformers' own modules, which know nothing of it"
        return dict.fromkeys(("recompute", "sequence_parallel", "tp_slices", "experts"), why)

    @property
    def is_layer(self) -> bool:
        return self.unit.role == "layer"

    @property
    def alone(self) -> str | None:
        return "the model runs on transformers' own modules, which are given samples of one document"

    @property
    def unlike(self) -> str | None:
        return next((t.name for t in self.unit.tensors if t.trains and t.std is None and t.value is None), None)

    def multiplied(self) -> tuple[str, ...]:
        """Adapters stand beside products that are ours."""
        return tuple(f"{path}.weight" for path in self.unit.linear)

    def legal_tp(self, tp: int) -> str | None:
        if tp == 1 or tp in self.told.tps:
            return None
        return self.told.whole or f"tp {tp} does not divide what transformers' plan of the model cuts"

    def __hash__(self) -> int:
        return hash((self.model, self.kind))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, ProvidedPart) and (self.model, self.kind) == (other.model, other.kind)
