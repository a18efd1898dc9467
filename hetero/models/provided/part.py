"""What a unit on transformers' own modules tells. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from balancer.cost.workload import TpBytes
from hetero.layers.spec import TensorSpec
from hetero.models.hf_model import HfModel
from hetero.models.parts.head import Head
from hetero.models.parts.part import Part, PartWork
from hetero.models.provided.told import ToldBytes, ToldLogits, ToldModel, ToldUnit

_MODULES = {"embedding": "ProvidedEmbedding", "layer": "ProvidedLayer", "head": "ProvidedHead"}


def head_of(told: ToldLogits) -> Head:
    """Ours, which makes the same logits."""
    weight = told.tensors[0]
    vocab, hidden = weight.shape
    return Head(vocab, hidden, weight.spec(1).initial, scale=told.scale, cap=told.cap, bias=len(told.tensors) > 1)


@dataclass(frozen=True)
class ProvidedPart(Part):
    """All of a unit, or the norm in front of our own head: of a `model` of which so much is `told`, and of units of one
    `kind`."""

    model: HfModel
    told: ToldModel
    kind: str

    @cached_property
    def unit(self) -> ToldUnit:
        return next(unit for unit in self.told.kinds if unit.kind == self.kind)

    @property
    def module(self) -> str:  # type: ignore[override]
        name = _MODULES[self.unit.role] if self.unit.logits is None else "ProvidedNorm"
        return f"hetero.models.provided.unit_modules:{name}"

    @property
    def hidden(self) -> int:
        return self.told.hidden

    @property
    def gives(self) -> tuple[int, ...]:
        """Of all layers."""
        kinds = (self.told.kinds[number] for number in self.told.units)
        return tuple(unit.gives for unit in kinds if unit.role == "layer")

    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        return tuple(tensor.spec(tp) for tensor in self.unit.tensors)

    def work(self, seq_len: int, size: int) -> PartWork:
        """Of the square of attention, the half that a mask leaves."""
        work = self.unit.work
        split, whole = work.kept.get(size, ToldBytes()).at(seq_len)
        told = work.remade, work.made_again, work.packed
        again, made_again, packed = (TpBytes(*one.get(size, ToldBytes()).at(seq_len)) for one in told)
        linear, square = work.flops
        stream = seq_len * size * self.hidden if self.unit.role != "embedding" else 0
        return PartWork(
            forward_flops=linear * seq_len + square * seq_len**2 / 2,
            collectives=work.collectives,
            kept=TpBytes(split, max(0, whole - stream)),
            packed=packed,
            input_bytes=stream,
            elementwise=again,
            made_again=made_again if self.is_layer else None,
            backward=self._backward(seq_len, size, TpBytes(split, whole)),
            weight_flops=work.products * seq_len,
            pairs=TpBytes(whole=work.pair * size * seq_len),
            masks=self._shared(work.shared, seq_len, size),
            plain_masks=self._shared(work.plain_shared, seq_len, size),
        )

    def _backward(self, seq_len: int, size: int, kept: TpBytes) -> TpBytes:
        """What a layer's backward needs is there while all that it keeps is; of it ranks have as much whole as of that.
        A norm has four float32 arrays of its input's size at once, as ours; whole logits have gradients of their own
        and of their logarithms, in float32."""
        if self.unit.logits is not None:
            return TpBytes(whole=16 * seq_len * self.hidden)
        if self.unit.role == "head":
            entries = next(tensor.shape[0] for tensor in self.unit.tensors if tensor.name == "head.weight")
            return TpBytes(whole=seq_len * (2 * size * self.hidden + 8 * entries))
        linear, square = self.unit.work.backward.get(size, (0.0, 0.0))
        needed = linear * seq_len + square * seq_len**2
        return TpBytes(int(needed), int(needed * kept.whole / max(1, kept.split + kept.whole)))

    @staticmethod
    def _shared(told: Mapping[int, Mapping[str, ToldBytes]], seq_len: int, size: int) -> dict[str, int]:
        return {name: one.at(seq_len)[1] for name, one in told.get(size, {}).items()}

    @property
    def refused(self) -> dict[str, str]:
        """None of them is possible without a view into a layer."""
        why = "the model runs on transformers' own modules, which know nothing of it"
        return dict.fromkeys(("sequence_parallel", "tp_slices", "experts"), why)

    @property
    def is_layer(self) -> bool:
        return self.unit.role == "layer"

    @property
    def alone(self) -> str | None:
        why = self.told.alone
        return f"the model runs on transformers' own modules, and {why}" if why else None

    @property
    def unlike(self) -> str | None:
        return next((t.name for t in self.unit.every_tensor if t.trains and t.std is None and t.value is None), None)

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
