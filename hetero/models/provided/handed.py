"""What passes between the layers of a model: how many things each gives, and what it is given beside the stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel, config_error
from hetero.models.provided.config_check import ELSEWHERE
from hetero.models.provided.measured import FAULTS, on_meta, without_experts
from hetero.models.provided.skeleton import Call, Passed, Shell, Skeleton

LENGTH = 24
MOST_GIVEN = 3


def things_given(skeleton: Skeleton) -> list[int]:
    """How many each layer gives, by its class: layers of a class are alike in it. None where that is the stream."""
    found: dict[type, int] = {}
    for layer, call in zip(skeleton.layers, _first_calls(skeleton), strict=True):
        if type(layer) not in found and call is not None:
            found[type(layer)] = _count_of(layer, call, skeleton)
    return [found.get(type(layer), 0) for layer in skeleton.layers]


def checked_calls(model: HfModel, skeleton: Skeleton, shell: Shell) -> list[Call]:
    """What layers are given beside the stream. ModelError where they hand each other more than that, or where it
    depends on the tokens."""
    batch, watch = _batch(), _Watch(model)
    with _seen_embedding(skeleton, shell), watch.layers(batch):
        stream = shell(batch)
    by_tokens = [one.call for one in shell.passed]
    watch.check_end(stream, len(skeleton.layers), (*batch.tokens_BT.shape, skeleton.hidden))
    calls = shell.calls(batch, skeleton.hidden, torch.float32)
    if not all(_equal(one, other) for one, other in zip(by_tokens, calls, strict=True)):
        raise watch.refusal("what its layers are given beside the stream depends on the tokens")
    return calls


class _Watch:
    """Sees what each layer of a shell is given in one forward."""

    def __init__(self, model: HfModel) -> None:
        self._model = model
        self._made: list[torch.Tensor] = []
        self._extra = object()
        """Stands for what a layer gives beside the stream."""

    @contextmanager
    def layers(self, batch: Batch) -> Iterator[None]:
        """Inside, layers of shells pass a new stream on, and note what they are given. Raises ModelError where that is
        more than they may be."""

        def forward(layer: Passed, *given: Any, **named: Any) -> Any:
            x = given[0] if given else named.pop("hidden_states")
            call = Call(given[1:], named)
            self._check(x, call, batch)
            layer.call = call
            self._made.append(x + 0)
            return (self._made[-1], *[self._extra] * (layer.gives - 1)) if layer.gives else self._made[-1]

        with patch.object(Passed, "forward", forward):
            yield

    def check_end(self, stream: torch.Tensor, layers: int, shape: tuple[int, ...]) -> None:
        """ModelError unless the last of so many layers gave this stream, of this shape."""
        if len(self._made) != layers or stream is not self._made[-1]:
            raise self.refusal("more is computed between its layers, or behind them, than its plan says")
        if stream.shape != shape:
            raise self.refusal(f"the stream has the shape {tuple(stream.shape[2:])} at each position")

    def refusal(self, rule: str) -> Exception:
        return config_error("model_type", self._model.model_type, f"on transformers' modules {rule}", ELSEWHERE)

    def _check(self, x: Any, call: Call, batch: Batch) -> None:
        if self._made and x is not self._made[-1]:
            raise self.refusal("its layers are not given what the one before gives, alone")
        others = [*call.given, *call.named.values()]
        if any(one is self._extra or one is batch.tokens_BT for one in tree_leaves(others)):
            raise self.refusal("its layers are given more than the stream: what other layers make, or the tokens")
        if any(isinstance(one, torch.Tensor) and one.requires_grad for one in tree_leaves(others)):
            raise self.refusal("its layers are given what depends on the embedding")
        if any(isinstance(one, dict | list) for one in others):
            raise self.refusal("its layers share what they compute")


def _first_calls(skeleton: Skeleton) -> list[Call]:
    """As of layers that give one thing or, where the model wants more of them, several."""
    for count in (0, *range(2, MOST_GIVEN + 1)):
        with suppress(ValueError):
            return _calls(skeleton, count)
    return _calls(skeleton, 0)


def _calls(skeleton: Skeleton, gives: int) -> list[Call]:
    return skeleton.shell([gives] * len(skeleton.layers)).calls(_batch(), skeleton.hidden, torch.float32)


def _count_of(layer: nn.Module, call: Call, skeleton: Skeleton) -> int:
    x = torch.empty(*_batch().tokens_BT.shape, skeleton.hidden, device="meta")
    try:
        with without_experts(layer), torch.no_grad():
            made = on_meta(call)(layer, x)
    except FAULTS:  # what it is given beside the stream tells why
        return 0
    return len(made) if isinstance(made, tuple) else 0


def _batch() -> Batch:
    tokens_BT = torch.arange(2 * LENGTH).view(2, LENGTH) % 7 + 3
    return Batch(tokens_BT, tokens_BT)


@contextmanager
def _seen_embedding(skeleton: Skeleton, shell: Shell) -> Iterator[None]:
    """With vectors that are no zeros, whose gradients are wanted."""
    found = shell.base.get_submodule(skeleton.embedding_name)
    weight = found.get_parameter("weight")
    found._parameters["weight"] = nn.Parameter(torch.randn(1, weight.shape[1]).expand(weight.shape))
    try:
        yield
    finally:
        found._parameters["weight"] = weight


def _equal(one: Call | None, other: Call | None) -> bool:
    if one is None or other is None:
        return one is other
    here, there = (tree_leaves([call.given, call.named]) for call in (one, other))
    return len(here) == len(there) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        for a, b in zip(here, there, strict=True)
    )
