"""What is Llama's own; tests/contract/test_families.py has what all families share."""

from __future__ import annotations

import pytest
import torch

from hetero.models.batch import Batch
from hetero.models.options import load_preset
from hetero.models.registry import architecture
from tests.unit.hetero.models.whole_model import build, loss_of, small, text


def test_units_are_embedding_half_layers_and_head() -> None:
    model = architecture(small())
    assert [unit.kind for unit in model.units] == ["embedding", "attention", "mlp", "attention", "mlp", "head"]
    assert model.legal_cuts == frozenset(range(6))


@pytest.mark.parametrize(
    ("tp", "changes", "reason"),
    [
        (1, {}, None),
        (2, {}, None),
        (8, {}, None),
        (8, {"kv_heads": 1}, None),
        (3, {}, "heads"),
        (16, {}, "heads"),
        (4, {"heads": 12, "hidden": 72, "kv_heads": 6}, "kv_heads"),
        (8, {"vocab": 7}, "vocab"),
        (8, {"ffn": 7}, "ffn"),
    ],
)
def test_legal_tp(tp: int, changes: dict[str, int], reason: str | None) -> None:
    found = architecture(small(**changes)).legal_tp(tp)
    assert found is None if reason is None else reason in str(found)


def test_forward_flops_are_two_for_each_weight_and_token_plus_attention() -> None:
    dims = load_preset("llama-7b")
    model = architecture(dims)
    work = model.workload(seq_len=2048, global_batch=1, precision="bfloat16")
    products = model.parameter_count - dims.hidden * (dims.vocab + 2 * dims.layers + 1)
    attention = dims.layers * 2 * 2048**2 * dims.hidden  # scores and values, half of the square each
    assert sum(unit.forward_flops for unit in work.units) == pytest.approx(2.0 * 2048 * products + attention)


def test_weight_gradients_that_may_wait_are_those_of_the_layers_products() -> None:
    dims = load_preset("llama-7b")
    work = architecture(dims).workload(seq_len=2048, global_batch=1, precision="bfloat16")
    for unit in work.units:
        norm = dims.hidden
        waits = unit.kind in ("attention", "mlp")
        assert unit.weight_flops == (2.0 * 2048 * (unit.parameters - norm) if waits else 0.0)
        assert 0 < unit.pairs.on_rank(1) < unit.activation_bytes if waits else unit.pairs.split == 0


def test_plain_positions_are_the_default() -> None:
    units, batch = build(small()), text(small())
    length = batch.tokens_BT.shape[1]
    plain_BT = torch.arange(length).expand_as(batch.tokens_BT)
    told = Batch(batch.tokens_BT, batch.labels_BT, plain_BT)
    far = Batch(batch.tokens_BT, batch.labels_BT, 2 * plain_BT % length)
    assert torch.equal(loss_of(units, told), loss_of(units, batch))
    assert not torch.allclose(loss_of(units, far), loss_of(units, batch), rtol=1e-7)
