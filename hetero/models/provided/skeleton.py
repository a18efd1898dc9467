"""transformers' own modules of a model, on no device, and what its own forward gives to each layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel, config_error

META = torch.device("meta")


class Call:
    """What a layer is given beside the stream."""

    def __init__(self, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.given, self.named = given, named

    def __call__(self, layer: nn.Module, x: torch.Tensor) -> Any:
        return layer(x, *self.given, **self.named)


class Skeleton:
    """The modules of a model, none of which has memory for its parameters; other buffers are as they begin."""

    def __init__(self, model: HfModel) -> None:
        self.causal = _built(model)
        self.base = getattr(self.causal, self.causal.base_model_prefix)
        plan = list(type(self.causal.config).base_model_pp_plan)
        lists = [name for name in plan if isinstance(getattr(self.base, name, None), nn.ModuleList)]
        if len(lists) != 1:
            rule = "transformers' modules of it have no one list of layers"
            raise config_error("model_type", model.model_type, rule, "choose a model of another type")
        self.layers_name = lists[0]
        after = plan[plan.index(self.layers_name) + 1 :]
        self.norm_name = next((name for name in after if isinstance(getattr(self.base, name, None), nn.Module)), None)
        self.head_name = self._name_of(self.causal, self.causal.get_output_embeddings())
        self.embedding_name = self._name_of(self.base, self.causal.get_input_embeddings())

    @property
    def config(self) -> Any:
        """Of the text."""
        return self.causal.config.get_text_config()

    @property
    def hidden(self) -> int:
        """The size of a vector of the stream."""
        return int(self.config.hidden_size)

    @property
    def layers(self) -> nn.ModuleList:
        found: nn.ModuleList = getattr(self.base, self.layers_name)
        return found

    def layer(self, number: int) -> nn.Module:
        """A copy."""
        return deepcopy(self.layers[number])

    def norm(self) -> nn.Module:
        """A copy of what comes behind the last layer."""
        return nn.Identity() if self.norm_name is None else deepcopy(getattr(self.base, self.norm_name))

    def shell(self, gives: Sequence[int]) -> Shell:
        """The model around its layers, all of whose parameters are zeros that take no memory. The layers give so many
        things each, none where it is the stream alone."""
        layers, norm = self.layers, self.norm_name
        kept = None if norm is None else getattr(self.base, norm)
        self.base._modules[self.layers_name] = nn.ModuleList()
        if norm is not None:
            self.base._modules[norm] = nn.Identity()
        try:
            copy = deepcopy(self.base)
        finally:
            self.base._modules[self.layers_name] = layers
            if norm is not None:
                self.base._modules[norm] = kept
        for _, owner, name, tensor in [*parameters_of(copy)]:
            if name in owner._parameters:
                hollow = torch.zeros(1).expand(tensor.shape)
                owner._parameters[name] = nn.Parameter(hollow, requires_grad=False)
        passed = [Passed(layer, count) for layer, count in zip(layers, gives, strict=True)]
        copy._modules[self.layers_name] = nn.ModuleList(passed)
        return Shell(copy, passed)

    def behind(self, product: nn.Module) -> Logits:
        """What makes logits of the last vectors, with `product` in the head's place."""
        name = self.causal.base_model_prefix
        self.causal._modules[name] = _GivenStream()
        try:
            copy = deepcopy(self.causal)
        finally:
            self.causal._modules[name] = self.base
        _put(copy, self.head_name, product)
        return Logits(copy, copy.get_submodule(name))

    @staticmethod
    def _name_of(model: nn.Module, wanted: nn.Module) -> str:
        return next(name for name, module in model.named_modules() if module is wanted)


class Passed(nn.Module):
    """Stands in a layer's place: lets the stream pass, and notes what it is given beside."""

    def __init__(self, layer: nn.Module, gives: int) -> None:
        super().__init__()
        self._layer, self.gives = (layer,), gives
        self.call: Call | None = None

    def forward(self, *given: Any, **named: Any) -> Any:
        x = given[0] if given else named.pop("hidden_states")
        self.call = Call(given[1:], named)
        return (x, *[None] * (self.gives - 1)) if self.gives else x

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__.get("_layer", (None,))[0], name)


class Shell(nn.Module):
    """The model around its layers: from tokens to the stream, and what each layer is given beside that."""

    def __init__(self, base: nn.Module, passed: list[Passed]) -> None:
        super().__init__()
        self.base = base
        self.passed = passed

    def forward(self, batch: Batch) -> torch.Tensor:
        """tokens_BT -> x_BTD."""
        return self._stream(batch, input_ids=batch.tokens_BT)

    def calls(self, batch: Batch, hidden: int, dtype: torch.dtype) -> list[Call]:
        """Of all layers: made of a stream of zeros."""
        shape, device = (*batch.tokens_BT.shape, hidden), batch.tokens_BT.device
        with torch.no_grad():
            self._stream(batch, inputs_embeds=torch.zeros(1, dtype=dtype, device=device).expand(shape))
        found = [passed.call for passed in self.passed]
        for passed in self.passed:
            passed.call = None
        return found  # type: ignore[return-value]

    def _stream(self, batch: Batch, **given: torch.Tensor) -> torch.Tensor:
        if batch.positions_BT is not None:
            given["position_ids"] = batch.positions_BT
        made: torch.Tensor = self.base(use_cache=False, return_dict=True, **given).last_hidden_state
        return made


class _GivenStream(nn.Module):
    """Stands in the model's place in front of its head."""

    x_BTD: torch.Tensor

    def forward(self, *_: Any, **__: Any) -> Any:
        return _Output(self.x_BTD)


class _Output:
    """Of a model without its head: all else is None."""

    def __init__(self, x_BTD: torch.Tensor) -> None:
        self.last_hidden_state = x_BTD

    def __getitem__(self, number: int) -> torch.Tensor | None:
        return self.last_hidden_state if number == 0 else None

    def __getattr__(self, name: str) -> None:
        return None


class Logits(nn.Module):
    """x_BTD -> (B, T, V), as the model's own class makes them."""

    def __init__(self, causal: nn.Module, given: Any) -> None:
        super().__init__()
        self.causal, self._given = causal, (given,)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        given = self._given[0]
        given.x_BTD = x_BTD
        try:
            tokens_BT = torch.zeros(x_BTD.shape[:2], dtype=torch.int64, device=x_BTD.device)
            logits_BTV: torch.Tensor = self.causal(tokens_BT, use_cache=False, return_dict=True).logits
        finally:
            del given.x_BTD
        return logits_BTV


@lru_cache(maxsize=2)
def skeleton_of(model: HfModel) -> Skeleton:
    """One for all units of a process."""
    return Skeleton(model)


def parameters_of(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor]]:
    """What is stored of a module, parameters and buffers, each once: its name, its owner and its name there."""
    seen: set[int] = set()
    for path, owner in module.named_modules():
        kept = {**owner._parameters, **{k: v for k, v in owner._buffers.items()
                                        if k not in owner._non_persistent_buffers_set}}  # fmt: skip
        for name, tensor in kept.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{path}.{name}" if path else name, owner, name, tensor


def settle(module: nn.Module, device: torch.device) -> None:
    """Its buffers that are not stored go to the device."""
    for owner in module.modules():
        for name in owner._non_persistent_buffers_set:
            if (tensor := owner._buffers.get(name)) is not None and tensor.device != device:
                owner._buffers[name] = tensor.to(device)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module


def _built(model: HfModel) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.for_model(**model.values)
    except (ValueError, KeyError, TypeError) as error:
        rule = f"transformers knows no such model ({error})"
        raise config_error("model_type", model.model_type, rule, "use another one") from None
    config._experts_implementation = "eager"
    causal = _on_meta(AutoModelForCausalLM, config, "sdpa")
    with torch.no_grad():
        for module in causal.modules():
            if own := [*module._non_persistent_buffers_set]:
                for name in own:
                    if (tensor := module._buffers.get(name)) is not None:
                        module._buffers[name] = torch.empty_like(tensor, device="cpu")
                causal._init_weights(module)
    return causal.eval()


def _on_meta(auto: Any, config: Any, attention: str) -> Any:
    """With plain attention where the model has no other."""
    try:
        with META:
            return auto.from_config(config, attn_implementation=attention, dtype=torch.float32)
    except ValueError:
        if attention == "eager":
            raise
        return _on_meta(auto, config, "eager")
