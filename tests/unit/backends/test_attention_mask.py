"""What a mask lets attention read, as numbers and as borders."""

from __future__ import annotations

from gc import collect
from weakref import ref

import pytest
import torch

from backends.attention_mask import AttentionMask, plain_mask
from backends.operators import Operators

DOCUMENTS_BT = torch.tensor([[7, 7, 7, 2, 2, 2, 2], [0, 1, 1, 1, 5, 5, 5]])
PLAIN = Operators()


def _heads(count: int) -> torch.Tensor:
    return torch.randn(2, count, 7, 8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("window", [None, 1, 2, 3])
@pytest.mark.parametrize("documents_BT", [None, DOCUMENTS_BT])
def test_a_position_reads_its_own_document_before_it_and_no_further_than_the_window(
    window: int | None, documents_BT: torch.Tensor | None
) -> None:
    added_B1TT = AttentionMask(documents_BT, window).added(_heads(1))
    for b, row_1TT in enumerate(added_B1TT):
        for query in range(7):
            for key in range(7):
                alike = documents_BT is None or documents_BT[b, query] == documents_BT[b, key]
                read = key <= query and alike and (window is None or query - key < window)
                assert row_1TT[0, query, key] == (0.0 if read else -torch.inf)


def test_ends_are_those_of_all_samples_one_after_another() -> None:
    """Two samples are two documents, whatever their numbers."""
    assert AttentionMask(DOCUMENTS_BT).ends == (3, 7, 8, 11, 14)
    assert AttentionMask(torch.zeros(2, 7, dtype=torch.int64)).ends == (7, 14)


def test_numbers_are_made_once_for_a_type_and_those_of_a_window_alone_once_for_all() -> None:
    mask, q_BHTK = AttentionMask(DOCUMENTS_BT), _heads(1)
    assert mask.added(q_BHTK) is mask.added(q_BHTK + 1)
    assert mask.added(q_BHTK.bfloat16()).dtype is torch.bfloat16
    held = plain_mask(3)
    assert held.added(q_BHTK) is plain_mask(3).added(q_BHTK)


def test_a_plain_mask_goes_with_the_last_that_holds_it() -> None:
    """Calibration's shorter ones, and those of an epoch that is over, are on no chip afterwards."""
    held = plain_mask(3)
    made = ref(held.added(_heads(1)))
    assert made() is not None
    del held
    collect()
    assert made() is None


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_attention_ends_at_borders_as_if_documents_were_alone(groups: int, window: int | None) -> None:
    q_BHTK, k_BGTK, v_BGTK = _heads(4), _heads(groups), _heads(groups) + 1
    together = PLAIN.masked_attention(q_BHTK, k_BGTK, v_BGTK, AttentionMask(DOCUMENTS_BT, window))
    for b, first, end in ((0, 0, 3), (0, 3, 7), (1, 0, 1), (1, 1, 4), (1, 4, 7)):
        alone = [x[b : b + 1, :, first:end] for x in (q_BHTK, k_BGTK, v_BGTK)]
        expected = PLAIN.masked_attention(*alone, AttentionMask(None, window)) if window else PLAIN.attention(*alone)
        torch.testing.assert_close(together[b : b + 1, :, first:end], expected)


def test_a_mask_first_asked_for_in_evaluation_serves_training() -> None:
    mask, x = AttentionMask(DOCUMENTS_BT), _heads(1).requires_grad_()
    with torch.inference_mode():
        PLAIN.masked_attention(x, x, x, mask)
    PLAIN.masked_attention(x, x, x, mask).sum().backward()
    assert x.grad is not None
