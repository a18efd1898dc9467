"""The choice of experts, the same on every rank of a group: each has the whole stream, and ties go to lower numbers.

Shapes: B sequences, T positions, D hidden, N = B * T tokens, E experts, G groups, C chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch

from hetero.layers.builder import Builder, ShardedModule
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.parts.routing import Routing


class Routes(NamedTuple):
    """Of each token: the numbers of its experts, and their weights in float32."""

    experts_NC: torch.Tensor
    weights_NC: torch.Tensor


class RouterModule(ShardedModule):
    """x_BTD -> Routes. Its product is computed in float32, so that no rounding decides, and gets its weight's gradient
    with its input's: it is no share of what a schedule can put off."""

    weight: torch.Tensor
    bias: torch.Tensor
    correction: torch.Tensor

    def __init__(self, builder: Builder, routing: Routing, specs: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self._routing, self._auxiliary = routing, builder.auxiliary
        self._counts_auxiliary = routing.auxiliary > 0 and builder.group.rank == 0  # once, not once by each rank
        for name in ("weight", "bias", "correction"):
            if (spec := specs.get(f"router.{name}")) is not None:
                self.hold(name, spec, builder.parameter(spec))

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Routes:
        logits_NE = cast(torch.Tensor, _WideProduct.apply(x_BTD.flatten(0, 1), self.weight))
        if self._routing.bias:
            logits_NE = logits_NE + self.bias
        routes, probability_NE = self._routes(logits_NE)
        if not self._counts_auxiliary:
            return routes
        if probability_NE is None:
            probability_NE = logits_NE.softmax(-1)
        filled_BT = batch.once("filled", lambda: batch.filled_BT)
        loss = self._auxiliary_loss(probability_NE.unflatten(0, x_BTD.shape[:2]), routes.experts_NC, filled_BT)
        return routes._replace(weights_NC=self._auxiliary.enter(routes.weights_NC, loss))

    def _routes(self, logits_NE: torch.Tensor) -> tuple[Routes, torch.Tensor | None]:
        """And the probabilities of all experts, where they are made anyhow."""
        routing = self._routing
        if routing.scores == "chosen_softmax":
            experts_NC = _best(logits_NE, routing.chosen)
            return Routes(experts_NC, logits_NE.gather(-1, experts_NC).softmax(-1) * routing.scale), None
        scores_NE = logits_NE.softmax(-1) if routing.scores == "softmax" else logits_NE.sigmoid()
        experts_NC = self._choice(scores_NE.detach())
        weights_NC = scores_NE.gather(-1, experts_NC)
        if routing.normalised:
            weights_NC = weights_NC / (weights_NC.sum(-1, keepdim=True) + 1e-20)
        if routing.scale != 1.0:
            weights_NC = weights_NC * routing.scale
        wanted = self._counts_auxiliary and routing.scores == "sigmoid"
        return Routes(experts_NC, weights_NC), scores_NE / scores_NE.sum(-1, keepdim=True) if wanted else scores_NE

    def _choice(self, scores_NE: torch.Tensor) -> torch.Tensor:
        routing = self._routing
        if routing.correction:
            scores_NE = scores_NE + self.correction.detach().float()
        if routing.groups > 1:
            scores_NGX = scores_NE.unflatten(-1, (routing.groups, -1))
            score_NG = scores_NGX.topk(routing.best_of_group, sorted=False).values.sum(-1)
            open_NG = torch.zeros_like(score_NG, dtype=torch.bool)
            open_NG.scatter_(-1, _best(score_NG, routing.chosen_groups), True)
            scores_NE = scores_NGX.masked_fill(~open_NG[..., None], -torch.inf).flatten(-2)
        return _best(scores_NE, routing.chosen)

    def _auxiliary_loss(
        self, probability_BTE: torch.Tensor, experts_NC: torch.Tensor, filled_BT: torch.Tensor | None
    ) -> torch.Tensor:
        """Summed over the sequences, each times its tokens; padding is none of them."""
        sequences, _, experts = probability_BTE.shape
        experts_BM = experts_NC.view(sequences, -1)
        chosen_BE = probability_BTE.new_zeros(sequences, experts)
        if filled_BT is None:
            ones_BM, mean_BE = torch.ones_like(experts_BM, dtype=chosen_BE.dtype), probability_BTE.mean(1)
        else:
            filled_BT1 = filled_BT[..., None].to(chosen_BE.dtype)
            ones_BM = filled_BT1.expand(-1, -1, experts_NC.shape[1]).flatten(1)
            mean_BE = (probability_BTE * filled_BT1).sum(1) / filled_BT1.sum(1).clamp(min=1)
        chosen_BE.scatter_add_(-1, experts_BM, ones_BM)
        return self._routing.auxiliary * experts * (chosen_BE * mean_BE).sum()


def _best(scores_NE: torch.Tensor, count: int) -> torch.Tensor:
    """The numbers of the largest ones, the largest first; equal ones in their order, which `topk` does not promise."""
    return scores_NE.argsort(dim=-1, descending=True, stable=True)[:, :count].clone()


class _WideProduct(torch.autograd.Function):
    """x W^T in float32, of which only what was given is kept."""

    @staticmethod
    def forward(ctx: Any, x_ND: torch.Tensor, weight_ED: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x_ND)
        ctx.weight_ED = weight_ED
        return x_ND.float() @ weight_ED.float().t()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (x_ND,), weight_ED, gradient_NE = ctx.saved_tensors, ctx.weight_ED, gradients[0]
        dx_ND = (gradient_NE @ weight_ED.float()).to(x_ND.dtype)
        return dx_ND, (gradient_NE.t() @ x_ND.float()).to(weight_ED.dtype)
