"""What becomes of the weight gradients of products: made at once, or kept back as product pairs for an action apart.

Shapes: N tokens, D inputs and E outputs of a product, X weights of a stack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch

from backends.operators import add_product as plain_add_product
from hetero.layers.dispatch import Dispatch

AddProduct = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


class ProductPair(NamedTuple):
    """What the gradient of a weight is made of: its product's input, and the gradient of its output. Of a stack of
    weights (X, E, D) one of the two has the rows of a `dispatch`, and the other all tokens: the input or, where its
    rows are `combined`, the gradient."""

    weight_ED: torch.Tensor
    x_ND: torch.Tensor
    gradient_NE: torch.Tensor
    dispatch: Dispatch | None = None
    combined: bool = False


class WeightGradients:
    """Those of one stage; autograd makes none of them. Each is added to what `sums` has of its weight, or else to the
    weight's `grad`, which the first one makes. `weights` are all of them; each is in one product of a micro-batch."""

    def __init__(self, add_product: AddProduct = plain_add_product) -> None:
        self.weights: set[torch.Tensor] = set()
        self.sums: Mapping[torch.Tensor, torch.Tensor] = {}
        self._add_product = add_product
        self._kept_back: deque[ProductPair] | None = None
        self._deferred = deque[ProductPair]()
        self._hooks: Mapping[torch.Tensor, Callable[[torch.Tensor], None]] = {}

    def take(self, pair: ProductPair, deferred: bool = False) -> None:
        """From a backward that has just made the gradient of a product's input. One that is `deferred` is made with
        others, by `flush`, which whoever runs the backward calls at its end."""
        if self._kept_back is not None:
            self._kept_back.append(pair)
        elif deferred:
            self._deferred.append(pair)
        else:
            self.make(pair)

    def flush(self) -> None:
        """Makes those that were deferred until a collective runs beside."""
        while self._deferred:
            self.make(self._deferred.popleft())

    def make(self, pair: ProductPair) -> None:
        weight_ED, x_ND, gradient_NE = pair[:3]
        total_ED = self.sums.get(weight_ED, weight_ED.grad)
        if pair.dispatch is not None:
            self._make_stack(pair, pair.dispatch, total_ED)
        elif total_ED is None:
            weight_ED.grad = gradient_NE.t().mm(x_ND)
        else:
            self._add_product(total_ED, gradient_NE, x_ND)
        if (hook := self._hooks.get(weight_ED)) is not None:
            hook(weight_ED)

    def _make_stack(self, pair: ProductPair, dispatch: Dispatch, total_XED: torch.Tensor | None) -> None:
        """A weight without rows gets nothing."""
        if total_XED is None:
            total_XED = pair.weight_ED.grad = torch.zeros_like(pair.weight_ED)
        for number, rows, tokens in dispatch.by_weight():
            if pair.combined:
                x_MD, gradient_ME = pair.x_ND[rows], pair.gradient_NE.index_select(0, tokens)
                gradient_ME *= dispatch.weight_M[rows, None]
            else:
                x_MD, gradient_ME = pair.x_ND.index_select(0, tokens), pair.gradient_NE[rows]
            self._add_product(total_XED[number], gradient_ME, x_MD)

    @contextmanager
    def keeping(self) -> Iterator[deque[ProductPair]]:
        """Inside, backwards make none: what this gives has their pairs in the order of their making, each to be made
        once."""
        self._kept_back = pairs = deque[ProductPair]()
        try:
            yield pairs
        finally:
            self._kept_back = None

    @contextmanager
    def telling(self, hooks: Mapping[torch.Tensor, Callable[[torch.Tensor], None]]) -> Iterator[None]:
        """Inside, a weight's hook is called when its gradient is made."""
        self._hooks = hooks
        try:
            yield
        finally:
            self._hooks = {}
