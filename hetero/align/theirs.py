"""A model as transformers computes it, by our units and operators.

The map of weights says which of its modules does what one of our operators does: the one that has its weight. What
enters the module of a unit's first operator is the residual stream before that unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from bridge.layout.layout import whole
from hetero.align.errors import AlignError
from hetero.align.model_trace import ModelTrace
from hetero.align.operator_probe import BEFORE, EXPERTS, TURNED, as_weights
from hetero.align.source import Source
from hetero.layers.cross_entropy import IGNORED
from hetero.models.batch import Batch
from hetero.models.distance import relative
from hetero.models.parts.attention import Attention
from hetero.models.parts.routing_module import Routes
from hetero.models.registry import architecture
from hetero.models.weight_map import WeightMap

SEEN = 3e-2
"""Roundings, of experts that are given other tokens beside, are far less; what is seen of another text is far more."""


def transformers_trace(source: Source, dtype: torch.dtype, batch: Batch) -> ModelTrace:
    """Of the directory's own class, with plain attention, which it ends where positions begin anew. AlignError where
    transformers is not here, or has no such model."""
    with source.directory() as folder:
        model = _loaded(str(folder), source.name, dtype)
    _check_apart(model, source.name, batch)
    found = _Found(model, source)
    with found.hooked():
        logits_BTV = _logits(model, batch.tokens_BT, batch)
    loss = torch.nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1).float(), batch.labels_BT.flatten(), reduction="sum", ignore_index=IGNORED
    )
    loss.backward()
    streams = found.streams()
    values = [*(stream.detach() for stream in streams), loss.detach()]
    gradients = [*(_gradient(stream) for stream in streams), torch.ones_like(loss)]
    return ModelTrace(values, gradients, found.operators, found.gradients())


def _loaded(folder: str, name: str, dtype: torch.dtype) -> nn.Module:
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        remedy = (
            "pip install transformers where the command runs, or all that belongs to it with pip install hetero[hf]"
        )
        raise AlignError("--against", "transformers", "it is not installed", remedy) from None
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        rule = f"transformers does not load {name} ({error})"
        raise AlignError("--against", "transformers", rule, "compare with another model of ours") from None
    return model.eval()


def _logits(model: nn.Module, tokens_BT: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, T, V), of other tokens than the batch's, maybe."""
    positions = {} if batch.positions_BT is None else {"position_ids": batch.positions_BT}
    logits_BTV: torch.Tensor = model(tokens_BT, use_cache=False, **positions).logits
    return logits_BTV


@torch.no_grad()
def _check_apart(model: nn.Module, name: str, batch: Batch) -> None:
    """AlignError where another first document changes what comes of the others of a sample, as of types whose masks
    know nothing of positions."""
    if batch.documents_BT is None:
        return
    tokens_BT, later_BT = batch.tokens_BT, batch.documents_BT > batch.documents_BT[:, :1]
    other_BT = torch.where(later_BT, tokens_BT, (tokens_BT + 1) % (tokens_BT.max() + 1))
    found, wanted = (_logits(model, one, batch)[later_BT] for one in (other_BT, tokens_BT))
    if relative(found, wanted) > SEEN:
        rule = f"transformers lets documents of one sample of {name} see each other"
        raise AlignError("--against", "transformers", rule, "compare samples of one document: --set data.pack=false")


class _Found:
    """What hooks have seen: `given` to units by their numbers, and what `operators` of each gave."""

    def __init__(self, model: nn.Module, source: Source) -> None:
        self._model, self._map = model, source.map
        self._architecture = architecture(source.description)
        self.given: dict[int, torch.Tensor] = {}
        self.operators: list[dict[str, torch.Tensor]] = [{} for _ in self._architecture.units]

    @contextmanager
    def hooked(self) -> Iterator[None]:
        attentions: dict[nn.Module, int] = {}
        with ExitStack() as stack:
            for number in range(len(self.operators)):
                for handle in self._hooks(number, attentions):
                    stack.callback(handle.remove)
            stack.enter_context(_turned(lambda module, q, k: self._turn(attentions.get(module), q, k)))
            yield

    def streams(self) -> list[torch.Tensor]:
        """What each unit but the first was given."""
        unseen = sorted(set(range(1, len(self.operators))) - self.given.keys())
        if unseen:
            rule = f"its modules do not show what enters unit {unseen[0]}"
            raise AlignError("--against", "transformers", rule, "compare with another model of ours")
        return [self.given[number] for number in range(1, len(self.operators))]

    def gradients(self) -> Mapping[str, torch.Tensor]:
        """By logical name."""
        there = _as_saved(
            self._model, {name: _gradient(one) for name, one in self._model.state_dict(keep_vars=True).items()}
        )

        def get(name: str, slices: tuple[slice, ...]) -> torch.Tensor:
            return there[name if name in there else name.removeprefix(self._map.prefix)][slices]

        specs = [
            spec
            for number in range(len(self.operators))
            for spec in self._architecture.tensors(number, 1).values()
        ]  # fmt: skip
        return {spec.name: self._map.read(spec.name, whole(spec.layout.shape), get) for spec in specs}

    def _hooks(self, number: int, attentions: dict[nn.Module, int]) -> Iterator[Any]:
        unit, first = self._architecture.units[number], True
        yield from self._hooks_of_experts(number)
        if unit.parts[0].is_layer:
            entering = self._entering(number)
            yield _layers(self._model)[number - 1].register_forward_pre_hook(entering, with_kwargs=True)
            first = False
        for local, spec in self._architecture.tensors(number, 1).items():
            if local in unit.ties or not local.endswith(".weight"):
                continue
            foreign = self._map.foreign_of(spec.name)[0]
            if (module := _module(self._model, foreign.rpartition(".")[0])) is None:
                continue
            name = local.removesuffix(".weight")
            if first and number:
                yield module.register_forward_pre_hook(self._entering(number), with_kwargs=True)
            first = False
            if name in BEFORE:
                yield module.register_forward_pre_hook(self._before(number, BEFORE[name]))
            if name == "o":
                attentions[self._model.get_submodule(foreign.rpartition(".")[0].rpartition(".")[0])] = number
            if name != "head" and not name.startswith(EXPERTS):
                yield module.register_forward_hook(self._after(number, name, _rows(self._map, spec.name, foreign)))

    def _hooks_of_experts(self, number: int) -> Iterator[Any]:
        """By the module that is given the routes: names of routers are not what directories say."""
        specs = self._architecture.tensors(number, 1)
        if "router.weight" not in specs:
            return
        experts, layer = specs["router.weight"].layout.shape[0], self._map.foreign_of(specs["router.weight"].name)[0]
        within = ".".join(layer.split(".")[:-3]) + "."
        for name, module in self._model.named_modules():
            if name.startswith(within) and name.endswith(".experts"):
                yield module.register_forward_pre_hook(self._routed(number, experts))

    def _routed(self, number: int, experts: int) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            _, experts_NC, weights = given
            if weights.shape != experts_NC.shape:
                weights = weights.gather(-1, experts_NC)
            self.operators[number]["router"] = as_weights(Routes(experts_NC, weights.detach()), experts)

        return hook

    def _entering(self, number: int) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            stream = given[0] if given else next(iter(named.values()))
            stream.retain_grad()
            self.given[number] = stream

        return hook

    def _before(self, number: int, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.operators[number][name] = given[0].detach()

        return hook

    def _after(self, number: int, name: str, rows: torch.Tensor | None) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            if isinstance(made, torch.Tensor):
                made = _positions_first(given[0], made.detach())
                self.operators[number][name] = made if rows is None else made[..., rows]

        return hook

    def _turn(self, number: int | None, query: torch.Tensor, key: torch.Tensor) -> None:
        """What turns, in our order: halves."""
        if number is None:
            return
        parts = [part for part in self._architecture.units[number].parts if isinstance(part, Attention)]
        for rotary in (part.rotary for part in parts if part.rotary is not None):
            for name, x in zip(TURNED, (query, key), strict=True):
                x = x.detach()[..., : rotary.dim]
                if rotary.interleaved:
                    x = x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
                self.operators[number][name] = x


def _layers(model: Any) -> nn.ModuleList:
    base = getattr(model, model.base_model_prefix)
    parts = (getattr(base, name, None) for name in type(model.config).base_model_pp_plan)
    return next(part for part in parts if isinstance(part, nn.ModuleList))


def _positions_first(given: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Norms of heads are given (B, T, H, K) in some types, and a view of that with heads first in others."""
    return made.transpose(1, 2) if given.dim() == 4 and given.stride(1) < given.stride(2) else made


def _module(model: nn.Module, path: str) -> nn.Module | None:
    """None where transformers computes with several of a directory's tensors at once."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _rows(found: WeightMap, logical: str, foreign: str) -> torch.Tensor | None:
    """Where the outputs of one product lie among those of a module that makes several; None where it makes one."""
    if len(together := found.logical_of(foreign)) == 1:
        return None
    assert logical in together
    rows = sum(_extent(found, one) for one in together)
    shape = found.foreign[foreign]
    by_row = torch.zeros(shape, dtype=torch.int64)
    by_row += torch.arange(rows)[:, None] if shape[0] == rows else torch.arange(rows)
    return found.read(logical, ((0, _extent(found, logical)), (0, 1)), lambda _, slices: by_row[slices]).flatten()


def _extent(found: WeightMap, logical: str) -> int:
    return found.shape(logical)[0]


@contextmanager
def _turned(tell: Callable[[Any, torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Tells of what enters attention: the module, queries and keys."""
    from transformers.modeling_utils import AttentionInterface

    plain = AttentionInterface.get_interface

    def get_interface(self: Any, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
        chosen = plain(self, name, default)

        def attention(module: Any, query: torch.Tensor, key: torch.Tensor, *others: Any, **named: Any) -> Any:
            tell(module, query, key)
            return chosen(module, query, key, *others, **named)

        return attention

    with patch.object(AttentionInterface, "get_interface", get_interface):
        yield


def _as_saved(model: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names, and in the shapes, of a directory."""
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(model, tensors)


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.detach()
