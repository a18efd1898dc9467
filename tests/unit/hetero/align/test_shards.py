"""What ranks have of a value, put together. Shapes: B sequences, T positions, D hidden, H heads."""

from __future__ import annotations

import pytest
import torch

from hetero.align.shards import Shards

X_BTD = torch.arange(4 * 6 * 8, dtype=torch.float32).view(4, 6, 8)


def _halves(x: torch.Tensor, dim: int) -> list[torch.Tensor]:
    return [*x.chunk(2, dim)]


def _rows(x_BTD: torch.Tensor) -> list[torch.Tensor]:
    """Of a sequence-parallel stage: all sequences end to end, of which each rank has half."""
    return [half.view(x_BTD.shape[0], -1, x_BTD.shape[2]) for half in x_BTD.flatten(0, 1).chunk(2)]


@pytest.mark.parametrize(
    "of",
    [
        lambda x: [x],
        lambda x: [x, x],
        lambda x: [x * 0.25, x * 0.75],
        lambda x: _halves(x, 2),
        lambda x: [x[..., :5], x[..., 5:]],
        lambda x: [half for half in _halves(x, 2) for _ in range(2)],
        _rows,
    ],
    ids=["one rank", "copies", "summands", "columns", "uneven columns", "copies of columns", "rows"],
)
def test_micro_batches_of_parts_make_the_whole(of) -> None:  # type: ignore[no-untyped-def]
    found = Shards([of(part) for part in X_BTD.split((2, 1, 1))]).whole(X_BTD.shape)
    assert found is not None
    torch.testing.assert_close(found, X_BTD, rtol=0, atol=0)


def test_heads_are_parts_of_the_second_dimension() -> None:
    x_BHTD = torch.randn(2, 4, 3, 5)
    found = Shards([_halves(x_BHTD, 1)]).whole(x_BHTD.shape)
    assert found is not None
    assert torch.equal(found, x_BHTD)


@pytest.mark.parametrize("parts", [[X_BTD[:2]], [X_BTD[..., :3], X_BTD[..., 3:6]], [X_BTD[0]], [X_BTD[:, :3, :4]]])
def test_parts_of_something_else_make_nothing(parts: list[torch.Tensor]) -> None:
    assert Shards([parts]).whole(X_BTD.shape) is None


def test_losses_of_micro_batches_add_up() -> None:
    one, other = torch.tensor(2.0), torch.tensor(3.0)
    assert Shards([[one, one], [other, other]]).whole(()) == 5.0
