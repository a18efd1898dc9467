"""What units cost and over how many ranks they go: each kind of layer is computed on no device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from backends.operators import Operators
from bridge.layout.layout import LayoutError
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel
from hetero.models.provided.calls import KEY, calls_of
from hetero.models.provided.elementwise import elementwise
from hetero.models.provided.kept import beside, fused_attention, given_bytes, kept_bytes, kept_on_meta, made_in
from hetero.models.provided.part import ProvidedPart
from hetero.models.provided.skeleton import META, Call, Skeleton
from hetero.models.provided.told import ToldBytes, ToldModel, ToldUnit, ToldWork
from hetero.models.provided.unit_modules import ProvidedLayer

TRIED = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
LENGTHS = 32, 64
TYPES = {4: torch.float32, 2: torch.bfloat16}
"""By the size of an element."""
FAULTS = RuntimeError, ValueError, LayoutError, IndexError, AttributeError, TypeError


def on_meta(call: Call) -> Call:
    def moved(x: Any) -> Any:
        return x.to(META) if isinstance(x, torch.Tensor) else x

    return Call(tree_map(moved, call.given), tree_map(moved, call.named))


@contextmanager
def without_experts(layer: nn.Module) -> Iterator[list[int]]:
    """Which tokens go where nobody knows here: experts give what they are given. Notes how many each token goes to."""
    chosen: list[int] = []

    def forward(x: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        tensors = [one for one in (*given, *named.values()) if isinstance(one, torch.Tensor)]
        chosen.extend(one.shape[-1] for one in tensors if not one.is_floating_point())
        return sum((one.sum() * 0.0 for one in tensors if one.is_floating_point()), x * 1.0)

    found = [module for _, module in layer.named_modules() if _is_experts(module)]
    for module in found:
        module.forward = forward
    try:
        yield chosen
    finally:
        for module in found:
            del module.__dict__["forward"]


def _is_experts(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Experts") and any(
        p.dim() == 3 for p in module._parameters.values() if p is not None
    )


def measured(model: HfModel, told: ToldModel, skeleton: Skeleton, calls: Sequence[Call]) -> ToldModel:
    """With the work of each kind, gradients of which ranks make a share, and the numbers of ranks that are legal."""
    kinds = list(told.kinds)
    firsts = {kind: unit for unit, kind in reversed([*enumerate(told.units)])}
    tps, why = list(TRIED) if not told.whole else [], told.whole
    for number, kind in enumerate(kinds):
        if kind.role != "layer":
            kinds[number] = kind.model_copy(update={"work": _work_around(kind, skeleton)})
            continue
        layer = _Layer(model, told.model_copy(update={"kinds": tuple(kinds)}), kind.kind, firsts[number], skeleton)
        try:
            once = layer.uses()
            kind = kind.model_copy(update={"linear": tuple(path for path in kind.linear if path in once)})
            styled = [path for path, style in kind.styles.items() if style in ("inward", "outward", "latent")]
            if lost := [path for path in styled if path not in kind.linear]:
                why, tps = why or f"{lost[0]} is used otherwise than by its product", []
            layer = layer.of(kind)
            kind = kind.model_copy(update={"work": layer.work(2 in tps)})
            layer = layer.of(kind)
            if tps:
                kind, fault = layer.shares(kind)
                why, tps = fault or why, [] if fault else tps
                layer = layer.of(kind)
            tps = [tp for tp in tps if layer.goes(tp)]
        except FAULTS as error:
            why, tps = why or f"a layer cannot be looked into ({str(error).splitlines()[0]})", []
            kind = kind.model_copy(update={"work": _plain_work(kind), "linear": (), "styles": {}})
        kinds[number] = kind
    if not tps and not why:
        why = "its heads and widths cannot be cut evenly"
    if not tps:
        kinds = [_uncut(kind) for kind in kinds]
    return told.model_copy(update={"kinds": tuple(kinds), "tps": (1, *tps), "whole": "" if tps else why})


def _uncut(kind: ToldUnit) -> ToldUnit:
    tensors = tuple(one.model_copy(update={"cut": None, "share": False}) for one in kind.tensors)
    return kind.model_copy(update={"tensors": tensors, "styles": {}})


@dataclass
class _Layer:
    """One kind, by its first unit."""

    model: HfModel
    told: ToldModel
    kind: str
    number: int
    skeleton: Skeleton

    def of(self, kind: ToldUnit) -> _Layer:
        kinds = tuple(kind if one.kind == kind.kind else one for one in self.told.kinds)
        return _Layer(self.model, self.told.model_copy(update={"kinds": kinds}), self.kind, self.number, self.skeleton)

    @property
    def part(self) -> ProvidedPart:
        return ProvidedPart(self.model, self.told, self.kind)

    def module(self, tp: int, dtype: torch.dtype = torch.float32) -> ProvidedLayer:
        specs = {
            spec.name: spec.__class__(f"units.{self.number}.{spec.name}", spec.layout, spec.initial, spec.trains)
            for spec in self.part.tensors(tp)
        }
        builder = Builder(TensorGroup(tp), Operators(), dtype, META, None)
        return ProvidedLayer(builder, self.part, specs)

    def run(
        self,
        module: ProvidedLayer,
        length: int,
        dtype: torch.dtype = torch.float32,
        calls: Sequence[Call] | None = None,
    ) -> tuple[Any, Any]:
        """Its input, and its output."""
        batch = _batch(length)
        x = torch.empty(1, length, self.told.hidden, dtype=dtype, device=META, requires_grad=True)
        batch.once((KEY, self.model, dtype), lambda: calls or self._calls_on_meta(length, dtype))
        return x, module(x, batch)

    def _calls_on_meta(self, length: int, dtype: torch.dtype, documents: int = 1) -> Sequence[Call]:
        calls = calls_of(self.part, _batch(length, documents), dtype)
        return [on_meta(call) if number == self.number - 1 else call for number, call in enumerate(calls)]

    def uses(self) -> set[str]:
        """The products of this layer that are used once, and whose weights nobody else reads."""
        module = self.skeleton.layer(self.number - 1)
        used: dict[str, int] = {}
        own = {path: module.get_submodule(path) for path in self.part.unit.linear}

        def probed(path: str, linear: Any) -> Any:
            def forward(x: torch.Tensor) -> torch.Tensor:
                used[path] = used.get(path, 0) + 1
                bias = None if linear.bias is None else linear.bias
                return nn.functional.linear(x, linear.weight.detach(), bias)

            return forward

        for path, linear in own.items():
            linear.forward = probed(path, linear)
        call = self._calls_on_meta(LENGTHS[0], torch.float32)[self.number - 1]
        x = torch.empty(1, LENGTHS[0], self.told.hidden, device=META, requires_grad=True)
        with without_experts(module):
            made = call(module, x)
        made = made[0] if isinstance(made, tuple) else made
        made.sum().backward()
        return {path for path, count in used.items() if count == 1 and own[path].weight.grad is None}

    def work(self, split: bool) -> ToldWork:
        unit = self.part.unit
        bytes_ = {size: self._told_bytes(dtype, split) for size, dtype in TYPES.items()}

        def of(place: int) -> dict[int, ToldBytes]:
            return {size: told[place] for size, told in bytes_.items()}

        flops, chosen = zip(*(self._flops(length) for length in LENGTHS), strict=True)
        linear, square = _fit(flops)
        experts = [t for t in unit.tensors if len(t.shape) == 3 and "experts" in t.parameter]
        active = chosen[0] * sum(2.0 * t.shape[1] * t.shape[2] for t in experts)
        matrices = {t.name: t for t in unit.tensors}
        products = [matrices[f"{path}.weight"].shape for path in unit.linear]
        collectives = sum(style in ("outward", "experts") for style in unit.styles.values())
        return ToldWork(
            flops=(linear + active, square),
            products=sum(2.0 * a * b for a, b in products),
            pair=sum(a + b for a, b in products),
            collectives=collectives,
            kept=of(0),
            packed=of(1),
            remade=of(2),
            made_again=of(3),
            backward={size: _fit(self._backward(dtype)) for size, dtype in TYPES.items()},
            shared={size: self._shared(dtype, 2) for size, dtype in TYPES.items()},
            plain_shared={size: self._shared(dtype, 1) for size, dtype in TYPES.items()},
        )

    def _told_bytes(self, dtype: torch.dtype, split: bool) -> list[ToldBytes]:
        """As `_kept` has them: what two ranks have less of, they divide."""
        one = [self._kept(1, length, dtype) for length in LENGTHS]
        try:
            two = [self._kept(2, length, dtype) for length in LENGTHS] if split else one
        except FAULTS:
            two = one
        return [_divided(*each) for each in zip(zip(*one, strict=True), zip(*two, strict=True), strict=True)]

    def _shared(self, dtype: torch.dtype, documents: int) -> dict[str, ToldBytes]:
        """What the layer is given of a sample of so many documents, by the first layer and place that has it."""
        batches = [_batch(length, documents) for length in LENGTHS]
        short, long = (given_bytes(calls_of(self.part, one, dtype), self.number - 1, one) for one in batches)
        return {name: ToldBytes(whole=_fit((short.get(name, 0), size))) for name, size in long.items()}

    def _kept(self, tp: int, length: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
        """In all, what more of several documents, what less where norms and activations are made again, and what these
        make."""
        whole, least, made = self._kept_of(tp, length, dtype, 1)
        packed = whole if self.told.alone else self._kept_of(tp, length, dtype, 2)[0]
        return whole, max(0, packed - whole), max(0, whole - least), made

    def _kept_of(self, tp: int, length: int, dtype: torch.dtype, documents: int) -> list[int]:
        """In all, and what is left where norms and activations are made again, and what these make."""
        module, calls = self.module(tp, dtype), self._calls_on_meta(length, dtype, documents)
        with (
            fused_attention(),
            without_experts(module.layer),
            kept_on_meta() as found,
            made_in(elementwise(module.layer), found) as apart,
        ):
            self.run(module, length, dtype, calls)
        return [beside(each, calls[self.number - 1]) for each in (found, *apart)]

    def _backward(self, dtype: torch.dtype) -> list[int]:
        """What a backward needs beside all that is kept and its result's gradient; by the halves of what is kept, where
        it cannot be gone through on no device."""
        try:
            return [self._backward_of(length, dtype) for length in LENGTHS]
        except FAULTS:
            return [self._kept_of(1, length, dtype, 1)[0] // 2 for length in LENGTHS]

    def _backward_of(self, length: int, dtype: torch.dtype) -> int:
        module = self.module(1, dtype)
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with fused_attention(), without_experts(module.layer), LiveBytes(META.type) as live:
            _, made = self.run(module, length, dtype)
            kept = live.peak = live.now
            made.backward(torch.empty_like(made))
        return live.peak - kept - made.nbytes

    def _flops(self, length: int) -> tuple[float, int]:
        module = self.module(1)
        with without_experts(module.layer) as chosen, FlopCounterMode(display=False) as counter:
            self.run(module, length)
        return float(counter.get_total_flops()), max(chosen, default=0)

    def goes(self, tp: int) -> bool:
        """Whether so many ranks make a whole result of it."""
        try:
            if any(t.cut is not None and t.shape[t.cut] % tp for t in self.part.unit.tensors):
                return False
            module = self.module(tp)
            with without_experts(module.layer):
                x, made = self.run(module, LENGTHS[0])
            return bool(made.shape == x.shape)
        except FAULTS:
            return False

    def shares(self, kind: ToldUnit) -> tuple[ToldUnit, str]:
        """Which tensors' gradients ranks make a share of each; or why they would not add up."""
        tp = next((tp for tp in TRIED if self.goes(tp)), None)
        if tp is None:
            return kind, "its heads and widths cannot be cut evenly"
        module, ends = self.module(tp), []
        entering = TensorGroup.reduce_out

        def reduce_out(group: TensorGroup, x: torch.Tensor) -> torch.Tensor:
            ends.append(x)
            return entering(group, x)

        with without_experts(module.layer), patch.object(TensorGroup, "reduce_out", reduce_out):
            x, made = self.run(module, LENGTHS[0])
        cut = [one.grad_fn for one in ends]
        entered = [node for node in _nodes(cut, ()) if type(node).__name__ in _ENTERING]
        whole = [made.grad_fn, *(before for node in entered for before, _ in node.next_functions)]
        inside, outside = _reached(cut, _ENTERING), _reached(whole, _LEAVING)
        if id(x) in inside:
            return kind, "its plan does not say how the gradient of the stream is summed"
        parameters = {id(t.parameter): t.name for t in module.tensors_held()}
        within = {parameters[one].split(".", 2)[2] for one in inside if one in parameters}
        beyond = {parameters[one].split(".", 2)[2] for one in outside if one in parameters}
        tensors = []
        for tensor in kind.tensors:
            share = tensor.name in within and tensor.cut is None
            if share and tensor.name in beyond:
                return kind, f"{tensor.name} is used in what ranks cut and in what they have whole"
            tensors.append(tensor.model_copy(update={"share": share}))
        return kind.model_copy(update={"tensors": tuple(tensors)}), ""


def _batch(length: int, documents: int = 1) -> Batch:
    """A sample of so many documents."""
    tokens_BT = torch.zeros(1, length, dtype=torch.int64)
    positions_BT = None if documents == 1 else torch.arange(length)[None] % -(-length // documents)
    return Batch(tokens_BT, tokens_BT, positions_BT)


_ENTERING, _LEAVING = ("_CopyInBackward", "_ToHeadsBackward"), ("_ReduceOutBackward",)
"""Nodes of a graph where what ranks cut begins, and where it ends."""


def _nodes(begin: Sequence[Any], stop: Sequence[str]) -> Iterator[Any]:
    seen, left = set(), [node for node in begin if node is not None]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if type(node).__name__ not in stop:
            left += [one for one, _ in node.next_functions if one is not None]


def _reached(begin: Sequence[Any], stop: Sequence[str]) -> set[int]:
    """The leaves that lie before these nodes, up to those of a kind."""
    return {id(node.variable) for node in _nodes(begin, stop) if hasattr(node, "variable")}


def _divided(one: Sequence[int], two: Sequence[int]) -> ToldBytes:
    halves = [2 * max(0, a - b) for a, b in zip(one, two, strict=True)]
    return ToldBytes(split=_fit(halves), whole=_fit([a - h for a, h in zip(one, halves, strict=True)]))


def _fit(values: Sequence[float]) -> tuple[float, float]:
    """Of a multiple of the length and one of its square."""
    (short, long), (a, b) = LENGTHS, values
    square = max(0.0, (b / long - a / short) / (long - short))
    return a / short - square * short, square


def _plain_work(kind: ToldUnit) -> ToldWork:
    """By its matrices alone."""
    matrices = [t.shape for t in kind.tensors if len(t.shape) == 2]
    return ToldWork(
        flops=(sum(2.0 * a * b for a, b in matrices), 0.0),
        kept={size: ToldBytes(whole=(size * float(sum(a + b for a, b in matrices)), 0.0)) for size in (2, 4)},
    )


def _work_around(kind: ToldUnit, skeleton: Skeleton) -> ToldWork:
    """Of embedding and head: what the norm in front of our own keeps; another keeps what it is given, and logits in
    float32."""
    if kind.role == "embedding":
        return ToldWork(collectives=1, kept={size: ToldBytes() for size in TYPES})
    hidden = skeleton.hidden
    if kind.logits is not None:
        norm = {size: _of_norm(skeleton.norm().to(dtype), hidden, dtype) for size, dtype in TYPES.items()}
        return ToldWork(kept=norm)
    entries = next(t.shape[0] for t in kind.tensors if t.name == "head.weight")
    kept = {size: ToldBytes(whole=(4.0 * entries + 3.0 * size * hidden, 0.0)) for size in TYPES}
    return ToldWork(flops=(2.0 * entries * hidden, 0.0), kept=kept)


def _of_norm(norm: nn.Module, hidden: int, dtype: torch.dtype) -> ToldBytes:
    x = torch.empty(1, LENGTHS[0], hidden, dtype=dtype, device=META, requires_grad=True)
    return ToldBytes(whole=(kept_bytes(norm, x) / LENGTHS[0], 0.0))
