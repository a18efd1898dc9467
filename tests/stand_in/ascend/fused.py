"""The vendor's fused operators by the definitions and the limits of its documents (torch_npu/_op_plugin_docs.py), for
the CPU. Whoever asks for what they do not take is refused; gradients are asked for by the wheel's own autograd.

Shapes: B batch, S positions, N and G heads of queries and of keys, D their size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

Tensors = tuple[torch.Tensor, ...]
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
WHOLE, LEFT_UP, RIGHT_DOWN, BAND = 1, 2, 3, 4
BLOCK = 2048
_ASKED = (
    "query", "key", "value", "head_num", "input_layout", "pse", "padding_mask", "atten_mask", "scale", "keep_prob",
    "pre_tockens", "next_tockens", "inner_precise", "prefix", "actual_seq_qlen", "actual_seq_kvlen", "sparse_mode",
)  # fmt: skip
"""Arguments of its attention in their order, as its schema has them."""


def rms_norm(x: torch.Tensor, gamma: torch.Tensor, epsilon: float = 1e-6) -> Tensors:
    assert x.dtype == gamma.dtype in FLOATS
    assert 2 <= x.dim() <= 8
    wide = x.float()
    rstd = (wide.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (wide * rstd * gamma.float()).to(x.dtype), rstd


def rms_norm_backward(dy: torch.Tensor, x: torch.Tensor, gamma: torch.Tensor, rstd: torch.Tensor) -> Tensors:
    unit, scaled = x.float() * rstd, dy.float() * gamma.float()
    dx = rstd * (scaled - unit * (scaled * unit).mean(-1, keepdim=True))
    return dx.to(x.dtype), (dy.float() * unit).flatten(0, -2).sum(0)


def rotary_mul(x: torch.Tensor, r1: torch.Tensor, r2: torch.Tensor, mode: str = "half", rotate: Any = None) -> Any:
    _takes_rotary(x, r1, r2, mode)
    assert rotate is None, "is said to have no backward"
    return (x.float() * r1.float() + _turned(x.float()) * r2.float()).to(x.dtype)


def rotary_mul_backward(
    dy: torch.Tensor, x: torch.Tensor, r1: torch.Tensor, r2: torch.Tensor, mode: str = "half"
) -> Tensors:
    _takes_rotary(x, r1, r2, mode)
    dx = dy.float() * r1.float() - _turned(dy.float() * r2.float())
    return dx.to(x.dtype), _summed_like(dy * x, r1), _summed_like(dy * _turned(x), r2)


def swiglu(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    assert x.dtype in FLOATS
    gate, up = x.float().chunk(2, dim)
    return (gate * gate.sigmoid() * up).to(x.dtype)


def swiglu_backward(dy: torch.Tensor, x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim)
    sigmoid, wide = gate.sigmoid(), dy.float()
    by_gate = wide * up * sigmoid * (1 + gate * (1 - sigmoid))
    return torch.cat((by_gate, wide * gate * sigmoid), dim).to(x.dtype)


def fusion_attention(*given: Any, **named: Any) -> tuple[Any, ...]:
    asked = dict(zip(_ASKED, given, strict=False)) | named
    asked, heads, like = _by_samples(asked), asked["head_num"], asked["query"]
    v = asked["value"]
    y_BSND = (_attention_weights(asked, asked["scale"]) @ _heads_first(v, heads)).transpose(1, 2).to(v.dtype)
    kept = torch.zeros(v.size(0), heads, v.size(1), 8)
    return y_BSND.reshape(like.shape).contiguous(), kept, kept.clone(), torch.empty(0), 0, 0, 0


def fusion_attention_grad(*given: Any, **named: Any) -> tuple[Any, ...]:
    asked = dict(zip((*_ASKED[:3], "dy", *_ASKED[3:5]), given, strict=False)) | named
    like = [asked[name] for name in _ASKED[:3]]
    asked = _by_samples(asked)
    q, k, v, dy = (asked[name] for name in ("query", "key", "value", "dy"))
    heads, scale = asked["head_num"], asked["scale_value"]
    weights_BNSS = _attention_weights(asked, scale)
    dy_BNSD, q_BNSD = _heads_first(dy, heads), _heads_first(q, heads)
    by_weight = dy_BNSD @ _heads_first(v, heads).transpose(-1, -2)
    by_score = weights_BNSS * (by_weight - (by_weight * weights_BNSS).sum(-1, keepdim=True)) * scale
    dq = (by_score @ _heads_first(k, heads)).transpose(1, 2)
    dk, dv = by_score.transpose(-1, -2) @ q_BNSD, weights_BNSS.transpose(-1, -2) @ dy_BNSD
    shared = (x.unflatten(1, (k.size(2), -1)).sum(2).transpose(1, 2) for x in (dk, dv))
    found = (x.reshape(y.shape).to(y.dtype).contiguous() for x, y in zip((dq, *shared), like, strict=True))
    return *found, torch.empty(0), torch.empty(0)


def _takes_rotary(x: torch.Tensor, r1: torch.Tensor, r2: torch.Tensor, mode: str) -> None:
    assert mode == "half"
    assert x.dtype == r1.dtype == r2.dtype in FLOATS
    assert x.dim() == r1.dim() == r2.dim() == 4
    assert x.size(-1) % 2 == 0
    assert x.size(-1) < 896
    assert x.size(0) < 1000 > x.size(2)
    assert r1.shape == r2.shape == (1, x.size(1), 1, x.size(3)), "1S1D, where the other is BSND"
    assert max(r1.abs().max(), r2.abs().max()) <= 1


def _turned(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def _summed_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return x.sum(tuple(axis for axis, size in enumerate(like.shape) if size == 1), keepdim=True).to(like.dtype)


def _by_samples(asked: dict[str, Any]) -> dict[str, Any]:
    """Sequences of many lengths, (S, N, D), as one sample whose scores are hidden between them."""
    if asked["input_layout"] == "BSND":
        return asked
    assert asked["input_layout"] == "TND"
    ends = list(asked["actual_seq_qlen"])
    assert ends == list(asked["actual_seq_kvlen"]) == sorted(ends)
    assert len(ends) <= 1024
    assert ends[-1] == asked["query"].size(0)
    rows = {name: asked[name][None] for name in ("query", "key", "value", "dy") if name in asked}
    return asked | rows | {"input_layout": "BSND", "ends": torch.tensor(ends)}


def _hidden(asked: dict[str, Any], length: int) -> torch.Tensor:
    """Which scores are no weights, (S, S) or (B, 1, S, S)."""
    place, mode = torch.arange(length), asked["sparse_mode"]
    mask = asked["atten_mask"]
    assert mask.dtype in (torch.bool, torch.uint8)
    if mode == WHOLE:
        assert mask.shape in [(size, 1, length, length) for size in (1, asked["query"].size(0))]
        assert not mask.bool().all(-1).any()
        return mask.bool()
    assert mode in (LEFT_UP, RIGHT_DOWN, BAND), "the first two are alike where queries are as many as keys"
    assert torch.equal(mask.bool(), _block())
    hidden = place > place[:, None]
    if mode == BAND:
        assert asked["next_tockens"] == 0 <= asked["pre_tockens"]
        hidden |= place[:, None] - place > asked["pre_tockens"]
    if "ends" in asked:
        sequence = torch.bucketize(place, asked["ends"], right=True)
        hidden |= sequence != sequence[:, None]
    return hidden


def _attention_weights(asked: dict[str, Any], scale: float) -> torch.Tensor:
    """Float32, (B, N, S, S)."""
    q, k, v, heads = asked["query"], asked["key"], asked["value"], asked["head_num"]
    assert asked["input_layout"] == "BSND"
    assert q.dtype == k.dtype == v.dtype in FLOATS
    assert heads == q.size(2) <= 256
    assert heads % k.size(2) == 0
    assert k.shape == v.shape == (q.size(0), q.size(1), k.size(2), q.size(3))
    assert q.size(3) <= 768
    assert asked.get("keep_prob", 1.0) == 1.0
    scores = _heads_first(q, heads) @ _heads_first(k, heads).transpose(-1, -2) * scale
    return scores.masked_fill(_hidden(asked, q.size(1)), float("-inf")).softmax(-1)


@cache
def _block() -> torch.Tensor:
    return torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)


def _heads_first(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Float32, (B, heads, S, D)."""
    return x.float().transpose(1, 2).repeat_interleave(heads // x.size(2), 1)


KERNELS = {
    "npu_rms_norm": rms_norm,
    "npu_rms_norm_backward": rms_norm_backward,
    "npu_rotary_mul": rotary_mul,
    "npu_rotary_mul_backward": rotary_mul_backward,
    "npu_swiglu": swiglu,
    "npu_swiglu_backward": swiglu_backward,
    "npu_fusion_attention": fusion_attention,
    "npu_fusion_attention_grad": fusion_attention_grad,
}
