"""A model's modules, looked into on no device: what becomes units, where ranks may cut them, what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel, config_error
from hetero.models.provided.frame import Call, Frame, Shell, frame_of, parameters_of
from hetero.models.provided.measured import FAULTS, measured
from hetero.models.provided.names import places, told_blocks
from hetero.models.provided.plan import Cuts, read_cuts
from hetero.models.provided.told import Told, ToldTensor, ToldUnit

LENGTH = 24
REFUSED = {"phi4_multimodal": "it reads images and sound too, whose parts no text trains"}
_ELSEWHERE = "choose a model of another type"


def describe(model: HfModel) -> Told:
    """ModelError where transformers' modules of the model cannot be units, and says why."""
    try:
        _check_values(model)
        return _described(model)
    except FAULTS as error:
        rule = f"transformers' modules of it cannot be taken apart ({str(error).splitlines()[0]})"
        raise config_error("model_type", model.model_type, rule, _ELSEWHERE) from error


def _described(model: HfModel) -> Told:
    frame = frame_of(model)
    gives = _gives(frame)
    shell = frame.shell(gives)
    calls = _checked(model, frame, shell)
    first = _first_values(frame)
    cuts = read_cuts(frame)
    kinds: list[ToldUnit] = []
    units: list[int] = []
    signatures: dict[Any, int] = {}
    embedding, head = _embedding(frame, shell, first), _head(frame, first)
    for unit in (embedding, *(_layer(frame, number, gives[number], first, cuts) for number in range(len(gives))), head):
        signature = unit.model_dump_json() + (_behaviour(frame, calls, len(units) - 1) if unit.role == "layer" else "")
        if signature not in signatures:
            signatures[signature] = len(kinds)
            same = sum(one.role == unit.role for one in kinds)
            kinds.append(unit.model_copy(update={"kind": f"{unit.kind} {same + 1}" if same else unit.kind}))
        units.append(signatures[signature])
    state, ties = places(frame.causal)
    base, layers = frame.causal.base_model_prefix, frame.layers_name
    prefixes = [{"": f"{base}."}, *({"": f"{base}.{layers}.{n}."} for n in range(len(gives))),
                {"norm.": f"{base}.{frame.norm_name}.", "head.": f"{frame.head_name}."}]  # fmt: skip
    tied = f"{frame.embedding_name}.weight" if _is_tied(frame) else None
    own = [
        tuple(tensor for tensor in kinds[kind].tensors if not (tied and tensor.name == "head.weight"))
        for kind in units
    ]  # fmt: skip
    told = Told(
        hidden=frame.causal.config.get_text_config().hidden_size,
        longest=_longest(shell),
        kinds=tuple(kinds),
        units=tuple(units),
        tied=tied,
        blocks=tuple(
            tuple(block for begin, there in prefix.items() for block in told_blocks(
                [t.model_copy(update={"parameter": t.parameter.removeprefix(begin)}) for t in tensors
                 if t.parameter.startswith(begin)], state, there))
            for tensors, prefix in zip(own, prefixes, strict=True)
        ),
        ties=ties,
        prefix=f"{base}.",
        whole=cuts.unknown,
    )  # fmt: skip
    return measured(model, told, frame, calls)


def _check_values(model: HfModel) -> None:
    from transformers import CONFIG_MAPPING

    kind = model.model_type
    if kind in REFUSED:
        raise config_error("model_type", kind, REFUSED[kind], _ELSEWHERE)
    known = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None  # noqa: SIM401 (it is no mapping of values)
    if not (getattr(known, "base_model_pp_plan", None) and getattr(known, "base_model_tp_plan", None)):
        rule = "transformers has no plan of how it is cut, and it is none of the native types"
        raise config_error("model_type", kind, rule, _ELSEWHERE)
    config = known(**{k: v for k, v in model.values.items() if k != "model_type"}).get_text_config()
    for key, value in config.to_dict().items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float) and value > 0:
            raise config_error(key, value, "dropout is not supported", "set it to 0.0")
    if getattr(config, "output_router_logits", False):
        rule = "transformers' loss for experts is of all layers and samples at once, so that a plan would change it"
        raise config_error("output_router_logits", True, rule, "set it to false")
    if getattr(config, "quantization_config", None):
        raise config_error("quantization_config", "...", "quantized weights cannot be trained", "use others")


def _gives(frame: Frame) -> list[int]:
    """How many things each layer gives, by its class: layers of a class are alike in it."""
    found: dict[type, int] = {}
    calls = _first_calls(frame)
    for layer, call in zip(frame.layers, calls, strict=True):
        if type(layer) not in found and call is not None:
            found[type(layer)] = _count_of(layer, call, frame)
    return [found.get(type(layer), 0) for layer in frame.layers]


def _first_calls(frame: Frame) -> list[Call]:
    """As of layers that give one thing or, where the model wants more of them, several."""
    hidden = frame.causal.config.get_text_config().hidden_size
    for count in (0, 2, 3):
        with suppress(ValueError):
            return frame.shell([count] * len(frame.layers)).calls(_batch(), hidden, torch.float32)
    return frame.shell([0] * len(frame.layers)).calls(_batch(), hidden, torch.float32)


def _count_of(layer: nn.Module, call: Call, frame: Frame) -> int:
    from hetero.models.provided.measured import on_meta, without_experts

    x = torch.empty(*_batch().tokens_BT.shape, frame.causal.config.get_text_config().hidden_size, device="meta")
    try:
        with without_experts(layer), torch.no_grad():
            made = on_meta(call)(layer, x)
    except FAULTS:  # what it is given beside the stream tells why
        return 0
    return len(made) if isinstance(made, tuple) else 0


def _batch() -> Batch:
    tokens_BT = torch.arange(2 * LENGTH).view(2, LENGTH) % 7 + 3
    return Batch(tokens_BT, tokens_BT)


def _checked(model: HfModel, frame: Frame, shell: Shell) -> list[Call]:
    """What layers are given beside the stream. ModelError where they hand each other more than that, or where it
    depends on the tokens."""
    batch, hidden = _batch(), frame.causal.config.get_text_config().hidden_size

    def refuse(rule: str) -> Exception:
        return config_error("model_type", model.model_type, f"on transformers' modules {rule}", _ELSEWHERE)

    made: list[Any] = []
    extra = object()
    own = type(shell._passed[0]).forward if shell._passed else None

    def forward(self: Any, *given: Any, **named: Any) -> Any:
        x = given[0] if given else named["hidden_states"]
        if made and x is not made[-1]:
            raise refuse("its layers are not given what the one before gives, alone")
        others = [*given[1:], *(v for k, v in named.items() if k != "hidden_states")]
        if any(one is extra or one is batch.tokens_BT for one in tree_leaves(others)):
            raise refuse("its layers are given more than the stream: what other layers make, or the tokens")
        if any(isinstance(one, torch.Tensor) and one.requires_grad for one in tree_leaves(others)):
            raise refuse("its layers are given what depends on the embedding")
        if any(isinstance(one, dict | list) for one in others):
            raise refuse("its layers share what they compute")
        self.call = Call(given[1:], {k: v for k, v in named.items() if k != "hidden_states"})
        made.append(x + 0)
        return (made[-1], *[extra] * (self._gives - 1)) if self._gives else made[-1]

    with _seen_embedding(frame, shell), patch.object(type(shell._passed[0]), "forward", forward):
        stream = shell(batch)
    by_tokens = [one.call for one in shell._passed]
    if len(made) != len(frame.layers) or stream is not made[-1]:
        raise refuse("more is computed between its layers, or behind them, than its plan says")
    if stream.shape != (*batch.tokens_BT.shape, hidden):
        raise refuse(f"the stream has the shape {tuple(stream.shape[2:])} at each position")
    assert own is not None
    calls = shell.calls(batch, hidden, torch.float32)
    if not all(_equal(one, other) for one, other in zip(by_tokens, calls, strict=True)):
        raise refuse("what its layers are given beside the stream depends on the tokens")
    return calls


@contextmanager
def _seen_embedding(frame: Frame, shell: Shell) -> Iterator[None]:
    """With vectors that are no zeros, whose gradients are wanted."""
    found = shell.base.get_submodule(frame.embedding_name)
    weight = found._parameters["weight"]
    found._parameters["weight"] = nn.Parameter(torch.randn(1, weight.shape[1]).expand(weight.shape))
    try:
        yield
    finally:
        found._parameters["weight"] = weight


def _equal(one: Call, other: Call) -> bool:
    here, there = (tree_leaves([call.given, call.named]) for call in (one, other))
    return len(here) == len(there) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        for a, b in zip(here, there, strict=True)
    )


def _behaviour(frame: Frame, calls: Sequence[Call], number: int) -> str:
    """What layers of equal tensors may differ in, as far as it costs something."""
    layer, config = frame.layers[number], frame.causal.config.get_text_config()
    types = getattr(config, "layer_types", None)
    return f"{type(layer).__name__} {types[number] if types and number < len(types) else ''}"


def _layer(frame: Frame, number: int, gives: int, first: Mapping[int, tuple[str, float]], cuts: Cuts) -> ToldUnit:
    layer, tensors = frame.layers[number], []
    for name, _, _, tensor in parameters_of(layer):
        tensors += _tensors(name, tensor, first, cuts.packed(number, name), cuts.cut(number, name))
    styles = cuts.styles(number)
    linear = [
        path
        for path, module in layer.named_modules()
        if type(module) is nn.Linear and styles.get(path) in (None, "inward", "outward", "latent")
    ]  # fmt: skip
    return ToldUnit(
        kind="layer", role="layer", tensors=tuple(tensors), styles=styles, linear=tuple(linear), gives=gives,
        rope=cuts.rope,
    )  # fmt: skip


def _tensors(
    name: str, tensor: torch.Tensor, first: Mapping[int, tuple[str, float]], packed: int | None, cut: int | None
) -> Iterator[ToldTensor]:
    if not tensor.is_floating_point():
        raise config_error("model_type", name, "a stored tensor of whole numbers is no weight", _ELSEWHERE)
    how = first.get(id(tensor))
    common = {
        "parameter": name,
        "cut": cut,
        "trains": isinstance(tensor, nn.Parameter),
        **({} if how is None else {how[0]: how[1]}),
    }
    if packed is None:
        yield ToldTensor(name=name, shape=tuple(tensor.shape), **common)
        return
    shape = list(tensor.shape)
    shape[packed] //= 2
    for part in range(2):
        yield ToldTensor(name=f"{name}.{part}", shape=tuple(shape), part=part, axis=packed, **common)


def _embedding(frame: Frame, shell: Shell, first: Mapping[int, tuple[str, float]]) -> ToldUnit:
    within, tensors = f"{frame.embedding_name}.weight", []
    begins = (f"{frame.layers_name}.", f"{frame.norm_name}.")
    for name, _, _, tensor in parameters_of(frame.base):
        if not name.startswith(begins):
            found = _tensors(name, tensor, first, None, 0 if name == within else None)
            tensors += [one.model_copy(update={"shared": one.name == within}) for one in found]
    return ToldUnit(kind="embedding", role="embedding", tensors=tuple(tensors))


def _head(frame: Frame, first: Mapping[int, tuple[str, float]]) -> ToldUnit:
    head, tensors = frame.causal.get_submodule(frame.head_name), []
    if not isinstance(head, nn.Linear):
        raise config_error("model_type", type(head).__name__, "its head is no product", _ELSEWHERE)
    if frame.norm_name is not None:
        for name, _, _, tensor in parameters_of(getattr(frame.base, frame.norm_name)):
            tensors += _tensors(f"norm.{name}", tensor, first, None, None)
    cut = 0 if _by_entry(frame, head) else None
    for name in ("weight", "bias"):
        if (tensor := head._parameters[name]) is not None:
            found = _tensors(f"head.{name}", tensor, first, None, cut)
            tensors += [one.model_copy(update={"shared": name == "weight"}) for one in found]
    return ToldUnit(kind="head", role="head", tensors=tuple(tensors))


class _Fixed(nn.Module):
    logits: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def _by_entry(frame: Frame, head: nn.Linear) -> bool:
    """Whether each logit is made of one number that the head gives, so that ranks may make some of them each."""
    fixed, entries = _Fixed(), head.out_features
    made, x = frame.behind(fixed), torch.zeros(1, 2, head.in_features)
    fixed.logits = whole = torch.randn(1, 2, entries)
    logits, half = made(x), entries // 2
    fixed.logits = whole[..., :half]
    return logits.shape == whole.shape and torch.equal(made(x), logits[..., :half])


def _is_tied(frame: Frame) -> bool:
    return frame.causal.get_output_embeddings().weight is frame.causal.get_input_embeddings().weight


def _longest(shell: Shell) -> int | None:
    """Where positions have been learnt."""
    tables = [m.num_embeddings for name, m in shell.base.named_modules() if isinstance(m, nn.Embedding)]
    return min(tables[1:], default=None)


def _first_values(frame: Frame) -> dict[int, tuple[str, float]]:
    """How transformers begins each parameter, by its id."""
    import transformers.initialization as init

    found: dict[int, tuple[str, float]] = {}

    def noting(kind: str, value: Any) -> Any:
        def note(tensor: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
            found[id(tensor)] = (kind, float(value(tensor, *given, **named)))
            return tensor

        return note

    def unknown(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        found.pop(id(tensor), None)
        return tensor

    normal = noting("std", lambda tensor, mean=0.0, std=1.0, *_, **__: std)
    known = {
        "normal_": normal,
        "trunc_normal_": normal,
        "zeros_": noting("value", lambda _: 0.0),
        "ones_": noting("value", lambda _: 1.0),
        "constant_": noting("value", lambda _, val: val),
        "copy_": unknown,
        "uniform_": unknown,
    }
    with patch.multiple(init, **known), torch.no_grad():
        for module in frame.causal.modules():
            frame.causal._init_weights(module)
    return found


def elements(tensors: Sequence[ToldTensor]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors)
