"""What the units of a Llama-style decoder cost.

Per sequence: FLOPs of the matrix products (2 per multiply-add; causal attention counts half of the square),
bytes kept for backward and needed meanwhile (of the plain operators of `backends/operators.py`), bytes of the boundary
tensor.
"""

from __future__ import annotations

from balancer.workload import UnitWork, Workload
from bridge.precision import ITEM_BYTES
from hetero.models.dimensions import Dimensions


def workload(dims: Dimensions, seq_len: int, global_batch: int, precision: str) -> Workload:
    """The balancer's view of the model; `precision` is that of activations, where a pool has no other."""
    by_precision = {name: _units(dims, seq_len, size) for name, size in ITEM_BYTES.items()}
    units = by_precision[precision]
    return Workload(
        units=units,
        seq_len=seq_len,
        global_batch=global_batch,
        legal_cuts=frozenset(range(len(units))),
        tied=((0, len(units) - 1),) if dims.tie_embeddings else (),
        by_precision=by_precision,
    )


def _units(dims: Dimensions, seq_len: int, size: int) -> tuple[UnitWork, ...]:
    layer = [_attention(dims, seq_len, size), _mlp(dims, seq_len, size)]
    return (_embedding(dims, seq_len, size), *(layer * dims.layers), _head(dims, seq_len, size))


def _embedding(dims: Dimensions, seq_len: int, size: int) -> UnitWork:
    return UnitWork(
        kind="embedding",
        forward_flops=0.0,
        parameters=dims.vocab * dims.hidden,
        activation_bytes=0,
        boundary_bytes=seq_len * dims.hidden * size,
        tp_collectives=1,
        largest_tensor=dims.vocab * dims.hidden,
    )


_NORM_BACKWARD = 4 * 4
"""A norm's backward has four float32 arrays of its input's size at once."""


def _norm(dims: Dimensions, seq_len: int, size: int) -> int:
    """Kept by a norm: its input in float32 (which may be the input itself), that times the scale, and the result."""
    return seq_len * (dims.hidden * (4 + 2 * size) + 4)


def _attention(dims: Dimensions, seq_len: int, size: int) -> UnitWork:
    hidden, kv = dims.hidden, dims.kv_heads * dims.head_dim
    weights = 2 * hidden * hidden + 2 * hidden * kv
    whole = _norm(dims, seq_len, size)
    # q, k, v and the result; one float32 log-sum for each head and position.
    kept = whole + seq_len * (size * (2 * hidden + 2 * kv) + 4 * dims.heads)
    return UnitWork(
        kind="attention",
        forward_flops=2.0 * seq_len * weights + 2.0 * seq_len * seq_len * hidden,
        parameters=weights + hidden + (hidden + 2 * kv) * dims.qkv_bias,
        activation_bytes=kept,
        boundary_bytes=seq_len * hidden * size,
        tp_collectives=1,
        whole_bytes=whole,
        last_bytes=_NORM_BACKWARD * seq_len * dims.hidden,
        backward_bytes=seq_len * size * (2 * hidden + 2 * kv),  # the gradients of the same four
        largest_tensor=hidden * hidden,
    )


def _mlp(dims: Dimensions, seq_len: int, size: int) -> UnitWork:
    weights = 3 * dims.hidden * dims.ffn
    whole = _norm(dims, seq_len, size)
    return UnitWork(
        kind="mlp",
        forward_flops=2.0 * seq_len * weights,
        parameters=weights + dims.hidden,
        # Gate, its SiLU, up, and their product; in backward the gradients of two of them at once.
        activation_bytes=whole + seq_len * size * 4 * dims.ffn,
        boundary_bytes=seq_len * dims.hidden * size,
        tp_collectives=1,
        whole_bytes=whole,
        last_bytes=_NORM_BACKWARD * seq_len * dims.hidden,
        backward_bytes=seq_len * size * 2 * dims.ffn,
        largest_tensor=dims.hidden * dims.ffn,
    )


def _head(dims: Dimensions, seq_len: int, size: int) -> UnitWork:
    """A tied weight counts with the embedding, as `Workload.tied` asks. The loss keeps the logarithms of the softmax in
    float32; before, there are the logits, and after, the gradients of both, in float32 too."""
    whole, logits = _norm(dims, seq_len, size), seq_len * dims.vocab
    return UnitWork(
        kind="head",
        forward_flops=2.0 * seq_len * dims.hidden * dims.vocab,
        parameters=dims.hidden * (1 if dims.tie_embeddings else 1 + dims.vocab),
        activation_bytes=whole + 4 * logits,
        boundary_bytes=0,
        tp_collectives=0,
        whole_bytes=whole,
        last_bytes=_NORM_BACKWARD * seq_len * dims.hidden,
        forward_bytes=logits * (size + (4 if size < 4 else 0)),
        backward_bytes=8 * logits,
        largest_tensor=dims.vocab * dims.hidden,
    )
