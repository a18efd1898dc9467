"""Documents packed into one sample, positions of their own, and labels that are not counted."""

from __future__ import annotations

from weakref import WeakValueDictionary

import pytest
import torch

from backends import attention_mask
from backends.attention_mask import AttentionMask
from hetero.layers.frequencies import Rotary
from hetero.layers.live_bytes import LiveBytes
from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel
from hetero.models.parts.attention_module import AttentionModule, angles_for
from hetero.models.registry import architecture
from tests.unit.hetero.models.whole_model import build, logical_tensors, loss_of, packed, small


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 8, "tie_embeddings": True}])
def test_a_packed_sample_has_the_gradients_of_its_documents_one_by_one(changes: dict[str, int]) -> None:
    dims = small(**changes)
    together, alone = packed(dims.vocab)
    losses, gradients = [], []
    for batches in ([together], alone):
        units = build(dims, dtype=torch.float64)
        loss = sum(loss_of(units, batch) for batch in batches)
        loss.backward()  # type: ignore[union-attr]
        losses.append(loss.item())  # type: ignore[union-attr]
        gradients.append({name: t.parameter.grad for name, t in logical_tensors(units).items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).norm() <= 1e-6 * gradient.norm(), name


def test_borders_and_positions_each_matter() -> None:
    """But for rounding, turning all positions of a document alike turns no score inside it."""
    whole, _ = packed(257)
    units, parts = build(small()), (whole.tokens_BT, whole.labels_BT)
    told = whole, Batch(*parts, None, whole.documents_BT), Batch(*parts, whole.positions_BT), Batch(*parts)
    both, borders, positions, neither = (loss_of(units, batch).item() for batch in told)
    assert both == pytest.approx(borders, rel=1e-5)
    assert len({round(loss, 1) for loss in (both, positions, neither)}) == 3


def test_parts_keep_samples_whole() -> None:
    whole, _ = packed(257)
    parts = [whole.part(number, 2) for number in range(2)]
    assert [len(part.tokens_BT) for part in parts] == [2, 1]
    assert torch.equal(torch.cat([part.documents_BT for part in parts]), whole.documents_BT)
    assert torch.equal(torch.cat([part.positions_BT for part in parts]), whole.positions_BT)
    assert sum(part.counted for part in parts) == whole.counted == 72 - 24
    bare = Batch(whole.tokens_BT, whole.labels_BT).part(1, 2)
    assert bare.positions_BT is bare.documents_BT is None


def test_what_is_made_once_is_made_for_a_batch() -> None:
    whole, other = packed(257)[0], packed(257)[0]
    assert whole.mask(24) is whole.mask(24)
    assert whole.mask(24) is not other.mask(24)
    assert whole.mask(24) is whole.mask(24, window=24)
    assert whole.mask(24, window=23) is not whole.mask(24)
    bare = Batch(whole.tokens_BT, whole.labels_BT)
    assert bare.mask(24) is bare.mask(24, window=24) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_packed_samples_keep_more_is_as_told_and_once_for_all_layers(dtype: torch.dtype) -> None:
    dims, length = small(), 192
    told = architecture(dims).workload(length, 1, str(dtype).removeprefix("torch.")).units
    tokens_BT = torch.zeros(1, length, dtype=torch.int64)
    positions_BT, documents_BT = torch.arange(length)[None] % 64, torch.arange(length)[None] // 64
    kept = []
    for given in ((), (positions_BT, documents_BT)):
        units = build(dims, dtype=dtype)[1:4]
        for batch in (Batch(tokens_BT, tokens_BT, *given) for _ in range(2)):  # angles of plain positions are made once
            boundary = {"x_BTD": torch.ones(1, length, dims.hidden, dtype=dtype, requires_grad=True)}
            with LiveBytes() as live:
                for unit in units:
                    boundary = unit(boundary, batch)
                now = live.now
        kept.append(now)
    assert kept[1] - kept[0] == pytest.approx(sum(told[1].masks.values()), rel=0.02)


@pytest.mark.parametrize(("window", "masks"), [(None, 0), (64, 1), (192, 0)])
def test_a_window_keeps_one_mask_for_all_layers_and_micro_batches_as_told(
    window: int | None, masks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_mask, "_plain", WeakValueDictionary())  # another test's model may still live
    config = {"model_type": "mistral", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 32,
              "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
              "sliding_window": window}  # fmt: skip
    description, length = HfModel.of(config), 192
    attention = architecture(description).workload(length, 1, "float32").units[1]
    assert sum(attention.plain_masks.values()) == masks * 4 * length**2
    units = build(description)[1:4]
    boundary = {"x_BTD": torch.ones(1, length, 32)}
    tokens_BT = torch.zeros(1, length, dtype=torch.int64)
    for unit in units:
        unit(boundary, Batch(tokens_BT, tokens_BT))  # angles are made once
    held = {id(mask): mask for unit in units for mask in _plain_masks_of(unit)}.values()
    assert sum(made.numel() for mask in held for made in mask._added.values()) == masks * length**2


def _plain_masks_of(unit: torch.nn.Module) -> list[AttentionMask]:
    return [mask for module in unit.modules() if isinstance(module, AttentionModule) for mask in module._plain_masks]


def test_each_document_of_a_packed_sample_has_the_frequencies_of_its_own_length() -> None:
    rotary = Rotary((1.0, 0.1), long=(0.5, 0.01), long_from=8)
    whole, alone = packed(97)
    together = torch.stack(angles_for(rotary, torch.empty(3, 24, 4), whole))[:, :, 0].flatten(1, 2)
    each = [torch.stack(angles_for(rotary, torch.empty(1, one.tokens_BT.shape[1], 4), one)) for one in alone]
    assert torch.equal(together, torch.cat(each, dim=1))
