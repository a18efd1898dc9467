"""One map between logical tensors and a directory's: read by boxes, written whole, and every element once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from hetero.models.registry import weights
from hetero.models.weight_map import Block, WeightMap
from hetero.models.weight_rules import Rule
from tests.tiny_models import tiny

Shapes = Mapping[str, tuple[int, ...]]
RULES: dict[str, tuple[Rule, Shapes]] = {
    "renamed": (Rule("w"), {"a": (6, 4)}),
    "transposed": (Rule("w", transposed=True), {"a": (6, 4)}),
    "joined": (Rule("w"), {"a": (6, 4), "b": (3, 4)}),
    "joined and transposed": (Rule("w", transposed=True), {"a": (6, 4), "b": (3, 4)}),
    "joined in groups": (Rule("w", groups=3), {"a": (6, 4), "b": (3, 4), "c": (3, 4)}),
    "interleaved": (Rule("w", axis=1, groups=5, transposed=True), {"a": (2, 5, 3), "b": (2, 5, 3)}),
    "stacked": (Rule("w.{item}"), {"a": (3, 4, 2)}),
    "stacked and transposed": (Rule("w.{item}", transposed=True), {"a": (3, 4, 2)}),
}


@pytest.mark.parametrize(("rule", "shapes"), RULES.values(), ids=RULES)
def test_what_is_read_in_boxes_is_written_again(rule: Rule, shapes: Shapes) -> None:
    found = WeightMap(shapes, rule.blocks(0, list(shapes.items())))
    there = {name: torch.randn(shape) for name, shape in found.foreign.items()}
    asked = 0

    def get(name: str, slices: tuple[slice, ...]) -> torch.Tensor:
        nonlocal asked
        asked += there[name][slices].numel()
        return there[name][slices]

    logical = {name: found.read(name, tuple((0, extent) for extent in shape), get) for name, shape in shapes.items()}
    assert asked <= len(shapes) * sum(tensor.numel() for tensor in there.values())
    for name, whole in logical.items():
        box = tuple((extent // 3, extent) for extent in whole.shape)
        assert torch.equal(found.read(name, box, get), whole[tuple(slice(*bounds) for bounds in box)])
    for name, tensor in there.items():
        written = found.write(name, logical.__getitem__)
        assert written.is_contiguous()
        assert torch.equal(written, tensor)
        assert {other for one in found.logical_of(name) for other in found.foreign_of(one)} >= {name}


@pytest.mark.parametrize("first", [torch.bfloat16, torch.float32])
def test_tensors_of_several_types_are_rounded_nowhere(first: torch.dtype) -> None:
    """As stacks of frozen and trained tensors are written, and directories of mixed types read."""
    second = torch.float32 if first == torch.bfloat16 else torch.bfloat16
    ours = {"a": torch.randn(6, 4).to(first), "b": torch.randn(3, 4).to(second)}
    joined = WeightMap({"a": (6, 4), "b": (3, 4)}, Rule("w").blocks(0, [("a", (6, 4)), ("b", (3, 4))]))
    assert torch.equal(joined.write("w", ours.__getitem__), torch.cat([ours["a"].float(), ours["b"].float()]))

    theirs = {"w.0": torch.randn(4, 2).to(first), "w.1": torch.randn(4, 2).to(second)}
    stacked = WeightMap({"a": (2, 4, 2)}, Rule("w.{item}").blocks(0, [("a", (2, 4, 2))]))
    found = stacked.read("a", ((0, 2), (0, 4), (0, 2)), lambda name, slices: theirs[name][slices])
    assert torch.equal(found, torch.stack([one.float() for one in theirs.values()]))


def test_only_what_is_in_a_box_is_asked_for() -> None:
    found = WeightMap({"a": (6, 4), "b": (3, 4)}, Rule("w").blocks(0, [("a", (6, 4)), ("b", (3, 4))]))
    asked: list[tuple[slice, ...]] = []
    found.read("b", ((1, 3), (0, 2)), lambda _, slices: asked.append(slices) or torch.zeros(2, 2))
    assert asked == [(slice(7, 9), slice(0, 2))]


def test_a_map_that_leaves_something_out_is_none() -> None:
    """An export that drops weights in silence must not be."""
    with pytest.raises(ValueError, match=r"a: blocks have 8 of its 24 elements"):
        WeightMap({"a": (6, 4)}, [Block("a", ((0, 2), (0, 4)), "w", (slice(0, 2, 1), slice(0, 4, 1)), (0, 1))])
    with pytest.raises(ValueError, match=r"w: blocks have 8 of its 12 elements"):
        WeightMap({"a": (2, 4)}, [Block("a", ((0, 2), (0, 4)), "w", (slice(1, 3, 1), slice(0, 4, 1)), (0, 1))])


def test_a_tie_may_be_there_and_is_not_written() -> None:
    tied, untied = (weights(tiny("llama", tie_word_embeddings=tie)) for tie in (True, False))
    assert tied.ties == {"lm_head.weight": "model.embed_tokens.weight"}
    assert "lm_head.weight" not in tied.foreign
    assert tied.logical_of("lm_head.weight") == ("units.0.embedding.weight",)
    assert not untied.ties
    assert "lm_head.weight" in untied.foreign
