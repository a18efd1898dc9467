"""What the units of a Llama-style decoder cost.

Per sequence: FLOPs of the matrix products (2 per multiply-add; causal attention counts half of the square),
bytes kept for backward, bytes of the boundary tensor.
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
        activation_bytes=8 * seq_len,
        boundary_bytes=seq_len * dims.hidden * size,
        tp_collectives=1,
    )


def _attention(dims: Dimensions, seq_len: int, size: int) -> UnitWork:
    hidden, kv = dims.hidden, dims.kv_heads * dims.head_dim
    weights = 2 * hidden * hidden + 2 * hidden * kv
    # Input, its norm, q and k before and after rotation, v, result; one float32 log-sum for each head and position.
    kept = seq_len * (size * (5 * hidden + 3 * kv) + 4 * dims.heads)
    return UnitWork(
        kind="attention",
        forward_flops=2.0 * seq_len * weights + 2.0 * seq_len * seq_len * hidden,
        parameters=weights + hidden + (hidden + 2 * kv) * dims.qkv_bias,
        activation_bytes=kept,
        boundary_bytes=seq_len * hidden * size,
        tp_collectives=1,
    )


def _mlp(dims: Dimensions, seq_len: int, size: int) -> UnitWork:
    weights = 3 * dims.hidden * dims.ffn
    return UnitWork(
        kind="mlp",
        forward_flops=2.0 * seq_len * weights,
        parameters=weights + dims.hidden,
        # Input and its norm; gate, its SiLU, up, and their product.
        activation_bytes=seq_len * size * (2 * dims.hidden + 4 * dims.ffn),
        boundary_bytes=seq_len * dims.hidden * size,
        tp_collectives=1,
    )


def _head(dims: Dimensions, seq_len: int, size: int) -> UnitWork:
    """A tied weight counts with the embedding, as `Workload.tied` asks."""
    return UnitWork(
        kind="head",
        forward_flops=2.0 * seq_len * dims.hidden * dims.vocab,
        parameters=dims.hidden * (1 if dims.tie_embeddings else 1 + dims.vocab),
        # Input and its norm; the logits' softmax in float32.
        activation_bytes=seq_len * (2 * size * dims.hidden + 4 * dims.vocab),
        boundary_bytes=0,
        tp_collectives=0,
    )
