"""Looks at what the operators inside a unit give, and puts other values in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from backends.operators import Operators, rotary
from hetero.layers.builder import ShardedModule
from hetero.layers.spec import TensorSpec
from hetero.models.parts.routing_module import Routes

Watcher = Callable[[str, torch.Tensor], torch.Tensor]
"""Given an operator's name and its value; what is returned goes on in its place."""

BEFORE = {"o": "attention", "down": "activation"}
"""Operators that are known by what they give to a product."""
EXPERTS = "experts."
"""What the names of operators begin with that are given some tokens alone."""
TURNED = ("rotary q", "rotary k")
"""In the order in which parts turn them."""


class OperatorProbe:
    """Watches units that are built with its `operators`: products and norms by the names of their weights."""

    def __init__(self) -> None:
        self.operators = replace(Operators(), rotary=self._rotary)
        self._seen: Watcher | None = None
        self._turned = 0

    @contextmanager
    def looking(self, seen: Watcher) -> Iterator[None]:
        """Around the forward of one unit."""
        self._seen, self._turned = seen, 0
        try:
            yield
        finally:
            self._seen = None

    def watch(self, unit: nn.Module, specs: Mapping[str, TensorSpec]) -> None:
        """`specs` are its tensors by their names within it."""
        within = {spec.name: name for name, spec in specs.items()}
        for module in unit.modules():
            if isinstance(module, ShardedModule) and module.is_operator and (own := [*module.own_tensors()]):
                self._watch(module, within[own[0].name].removesuffix(".weight"), own[0].layout.shape[0])

    def _watch(self, module: nn.Module, name: str, rows: int) -> None:
        def before(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._see(BEFORE[name], given[0]), *given[1:])

        def after(_: nn.Module, given: tuple[Any, ...], made: Any) -> Any:
            if isinstance(made, Routes):
                return self._see_routes(name, made, rows)
            return self._see(name, made)

        if name in BEFORE:
            module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def _rotary(self, x_BHTK: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor) -> torch.Tensor:
        self._turned += 1
        return self._see(TURNED[(self._turned - 1) % len(TURNED)], rotary(x_BHTK, cos_TK, sin_TK))

    def _see_routes(self, name: str, routes: Routes, experts: int) -> Routes:
        """As the weight that each token gives to each expert."""
        weights_NE = as_weights(routes, experts)
        seen_NE = self._see(name, weights_NE)
        if seen_NE is weights_NE:
            return routes
        weights_NC, experts_NC = seen_NE.to(weights_NE.dtype).topk(routes.experts_NC.shape[1])
        return Routes(experts_NC, weights_NC)

    def _see(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return value if self._seen is None else self._seen(name, value)


def as_weights(routes: Routes, experts: int) -> torch.Tensor:
    """(N, E), zero where a token does not go."""
    weights_NE = routes.weights_NC.new_zeros(len(routes.weights_NC), experts)
    return weights_NE.scatter(-1, routes.experts_NC, routes.weights_NC)
