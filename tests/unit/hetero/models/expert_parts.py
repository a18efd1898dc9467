"""Experts as families have them, small, and what they compute, told in another way: each expert for each token."""

from __future__ import annotations

import torch

from hetero.layers.spec import Normal
from hetero.models.parts.experts import ClampedGate, Experts
from hetero.models.parts.routing import Routing

D, F, E, C = 64, 88, 8, 2
STD = Normal(0.3)
MIXTRAL = Experts(D, F, Routing(E, C, normalised=True), STD, STD)
QWEN2 = Experts(D, F, Routing(E, 3, auxiliary=0.5), STD, STD, shared_ffn=40, shared_gate=True)
DEEPSEEK2 = Experts(D, F, Routing(E, C, scale=1.5, groups=4, chosen_groups=2), STD, STD, shared_ffn=48)
_SIGMOID = Routing(
    E, 3, "sigmoid", True, 2.5, groups=4, chosen_groups=2, best_of_group=2, correction=True, auxiliary=0.25
)
DEEPSEEK3 = Experts(D, F, _SIGMOID, STD, STD, shared_ffn=24)
GPT_OSS = Experts(
    D, F, Routing(E, C, "chosen_softmax", bias=True), STD, STD, bias=True, clamped=ClampedGate(1.702, 1.5)
)
PARTS = {
    "mixtral": MIXTRAL,
    "qwen2_moe": QWEN2,
    "deepseek_v2": DEEPSEEK2,
    "deepseek_v3": DEEPSEEK3,
    "gpt_oss": GPT_OSS,
}
Tensors = dict[str, torch.Tensor]


def plainly(part: Experts, tensors: Tensors, x_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the part gives, and its auxiliary loss, summed over sequences times their tokens."""
    weight_BTE, probability_BTE = _weights(part.routing, tensors, x_BTD)
    y_BTD = torch.zeros_like(x_BTD)
    for expert in range(part.routing.experts):
        of_one = {name.removeprefix("experts."): t[expert] for name, t in tensors.items() if name[:8] == "experts."}
        y_BTD = y_BTD + weight_BTE[..., expert, None] * _mlp(part, of_one, x_BTD)
    if part.shared_ffn:
        of_one = {name.removeprefix("shared."): t for name, t in tensors.items() if name[:7] == "shared."}
        gate = (x_BTD @ of_one["weight.weight"].t()).sigmoid() if part.shared_gate else 1.0
        y_BTD = y_BTD + gate * _mlp(part, of_one, x_BTD)
    share_BE = (weight_BTE > 0).double().mean(1)
    loss = (share_BE * probability_BTE.mean(1)).sum() * part.routing.experts * x_BTD.shape[1]
    return y_BTD, part.routing.auxiliary * loss


def _mlp(part: Experts, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    gate, up = (x @ tensors[f"{name}.weight"].t() + tensors.get(f"{name}.bias", 0.0) for name in ("gate", "up"))
    if part.clamped is None:
        inner = torch.nn.functional.silu(gate) * up
    else:
        alpha, limit = part.clamped.alpha, part.clamped.limit
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        inner = gate * torch.sigmoid(alpha * gate) * (up + 1)
    return inner @ tensors["down.weight"].t() + tensors.get("down.bias", 0.0)


def _weights(routing: Routing, tensors: Tensors, x_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all experts, zero for those that a token does not choose; and the probabilities."""
    logits = x_BTD @ tensors["router.weight"].t() + tensors.get("router.bias", 0.0)
    scores = logits.sigmoid() if routing.scores == "sigmoid" else logits.softmax(-1)
    probability = scores / scores.sum(-1, keepdim=True)
    choice = (logits if routing.scores == "chosen_softmax" else scores + tensors.get("router.correction", 0.0)).detach()
    if routing.groups > 1:
        grouped = choice.unflatten(-1, (routing.groups, -1))
        best = grouped.sort(-1, descending=True).values[..., : routing.best_of_group].sum(-1)
        least = best.sort(-1, descending=True).values[..., routing.chosen_groups - 1, None]
        choice = grouped.masked_fill((best < least)[..., None], -torch.inf).flatten(-2)
    chosen = choice >= choice.sort(-1, descending=True).values[..., routing.chosen - 1, None]
    if routing.scores == "chosen_softmax":
        return logits.masked_fill(~chosen, -torch.inf).softmax(-1) * routing.scale, probability
    weights = scores * chosen
    return (weights / weights.sum(-1, keepdim=True) if routing.normalised else weights) * routing.scale, probability
