"""How a token chooses its experts. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec


@dataclass(frozen=True)
class Routing:
    """A token goes to the `chosen` of all `experts` with the best scores, weighted by these.

    `scores` are made of a product with the token: by softmax over all experts, by a sigmoid of each, or by softmax over
    the chosen ones alone (`chosen_softmax`). Where `normalised`, a token's weights sum to one; then they are multiplied
    by `scale`. Experts lie in `groups` of equal size, of which a token chooses among the `chosen_groups` best, by the
    sum of their `best_of_group` best scores. `bias` is of the product; a `correction` is added to scores for the choice
    alone, and no gradient reaches it.

    `auxiliary` is the coefficient of a loss that keeps experts equally busy: experts * sum over them of f * P, where f
    is how many of a sequence's tokens have chosen the expert, and P its mean probability, both over the tokens, of
    which padding of packed samples is none. It is that of each sequence alone, which no plan changes, weighted by its
    tokens as their own losses are.
    """

    experts: int
    chosen: int
    scores: Literal["softmax", "sigmoid", "chosen_softmax"] = "softmax"
    normalised: bool = False
    scale: float = 1.0
    groups: int = 1
    chosen_groups: int = 1
    best_of_group: int = 1
    bias: bool = False
    correction: bool = False
    auxiliary: float = 0.0

    def tensors(self, hidden: int, tp: int, initial: Normal) -> Iterator[TensorSpec]:
        """Whole on every rank, each of which makes a share of the gradient: that of what its experts gave."""

        def whole(*shape: int) -> TensorLayout:
            return TensorLayout.replicated(shape, tp, "summed")

        yield TensorSpec("router.weight", whole(self.experts, hidden), initial)
        if self.bias:
            yield TensorSpec("router.bias", whole(self.experts), Constant(0.0))
        if self.correction:
            yield TensorSpec("router.correction", whole(self.experts), Constant(0.0), trains=False)
