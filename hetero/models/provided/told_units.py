"""What a model's modules tell of its units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hetero.models.hf_model import config_error
from hetero.models.provided.config_check import ELSEWHERE
from hetero.models.provided.first_values import FirstValue
from hetero.models.provided.logits import bend_of
from hetero.models.provided.plan import Cuts
from hetero.models.provided.skeleton import Skeleton, parameters_of
from hetero.models.provided.told import ToldLogits, ToldTensor, ToldUnit

_OURS = None, "inward", "outward", "latent"
"""Styles of products that are ours to make."""


class UnitTeller:
    """Of a model whose parameters begin with `first` values, by their ids, and which ranks cut by `cuts`."""

    def __init__(self, skeleton: Skeleton, first: Mapping[int, FirstValue], cuts: Cuts) -> None:
        self._skeleton, self._first, self._cuts = skeleton, first, cuts

    def units(self, gives: Sequence[int]) -> list[ToldUnit]:
        """All of them. The layers give so many things each."""
        return [self._embedding(), *(self._layer(number, count) for number, count in enumerate(gives)), self._head()]

    def _embedding(self) -> ToldUnit:
        skeleton, tensors = self._skeleton, list[ToldTensor]()
        within, elsewhere = f"{skeleton.embedding_name}.weight", (f"{skeleton.layers_name}.", f"{skeleton.norm_name}.")
        for name, _, _, tensor in parameters_of(skeleton.base):
            if not name.startswith(elsewhere):
                tensors += self._tensors(name, tensor, cut=0 if name == within else None, shared=name == within)
        return ToldUnit(kind="embedding", role="embedding", tensors=tuple(tensors))

    def _layer(self, number: int, gives: int) -> ToldUnit:
        cuts, layer, tensors = self._cuts, self._skeleton.layers[number], list[ToldTensor]()
        for name, _, _, tensor in parameters_of(layer):
            tensors += self._tensors(name, tensor, cut=cuts.cut(number, name), packed=cuts.packed(number, name))
        styles = cuts.styles(number)
        linear = (path for path, module in layer.named_modules() if type(module) is nn.Linear)
        return ToldUnit(
            kind="layer",
            role="layer",
            tensors=tuple(tensors),
            styles=styles,
            linear=tuple(path for path in linear if styles.get(path) in _OURS),
            gives=gives,
            rope=cuts.rope,
        )

    def _head(self) -> ToldUnit:
        skeleton, norm = self._skeleton, list[ToldTensor]()
        head = skeleton.causal.get_submodule(skeleton.head_name)
        if not isinstance(head, nn.Linear):
            raise config_error("model_type", type(head).__name__, "its head is no product", ELSEWHERE)
        if skeleton.norm_name is not None:
            for name, _, _, tensor in parameters_of(getattr(skeleton.base, skeleton.norm_name)):
                norm += self._tensors(f"norm.{name}", tensor)
        product = list[ToldTensor]()
        for name in ("weight", "bias"):
            if (stored := head._parameters[name]) is not None:
                product += self._tensors(f"head.{name}", stored, shared=name == "weight")
        if (bend := bend_of(skeleton, head)) is None:
            return ToldUnit(kind="head", role="head", tensors=(*norm, *product))
        logits = ToldLogits(tensors=tuple(product), scale=bend.scale, cap=bend.cap)
        return ToldUnit(kind="head", role="head", tensors=tuple(norm), logits=logits)

    def _tensors(
        self, name: str, tensor: torch.Tensor, cut: int | None = None, packed: int | None = None, shared: bool = False
    ) -> Iterator[ToldTensor]:
        """The tensor, or its two halves along the dimension in which it is `packed`."""
        if not tensor.is_floating_point():
            raise config_error("model_type", name, "a stored tensor of whole numbers is no weight", ELSEWHERE)
        trains, first = isinstance(tensor, nn.Parameter), self._first.get(id(tensor))
        common: dict[str, Any] = {"parameter": name, "cut": cut, "trains": trains, "shared": shared}
        if first is not None:
            common[first.kind] = first.number
        if packed is None:
            yield ToldTensor(name=name, shape=tuple(tensor.shape), **common)
            return
        shape = list(tensor.shape)
        shape[packed] //= 2
        for part in range(2):
            yield ToldTensor(name=f"{name}.{part}", shape=tuple(shape), part=part, axis=packed, **common)
