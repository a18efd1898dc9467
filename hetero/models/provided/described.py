"""A model's modules, looked into on no device: what becomes units, where ranks may cut them, what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from hetero.models.hf_model import HfModel, config_error
from hetero.models.provided.config_check import ELSEWHERE, check_config
from hetero.models.provided.documents import why_alone
from hetero.models.provided.first_values import first_values
from hetero.models.provided.handed import checked_calls, things_given
from hetero.models.provided.measured import FAULTS, measured
from hetero.models.provided.names import StoredBox, places, told_blocks
from hetero.models.provided.plan import Cuts
from hetero.models.provided.skeleton import Shell, Skeleton, skeleton_of
from hetero.models.provided.told import ToldBlock, ToldModel, ToldTensor, ToldUnit
from hetero.models.provided.told_units import UnitTeller

HEAD_WEIGHT = "head.weight"


def describe(model: HfModel) -> ToldModel:
    """ModelError where transformers' modules of the model cannot be units, and says why."""
    try:
        check_config(model)
        return _described(model)
    except FAULTS as error:
        rule = f"transformers' modules of it cannot be taken apart ({str(error).splitlines()[0]})"
        raise config_error("model_type", model.model_type, rule, ELSEWHERE) from error


def _described(model: HfModel) -> ToldModel:
    skeleton = skeleton_of(model)
    gives = things_given(skeleton)
    shell = skeleton.shell(gives)
    calls = checked_calls(model, skeleton, shell)
    cuts = Cuts(skeleton)
    units = UnitTeller(skeleton, first_values(skeleton), cuts).units(gives)
    kinds, numbers = _by_kind(skeleton, units)
    state, ties = places(skeleton.causal)
    told = ToldModel(
        hidden=skeleton.hidden,
        longest=_longest(shell),
        kinds=tuple(kinds),
        units=tuple(numbers),
        tied=f"{skeleton.embedding_name}.weight" if _is_tied(skeleton) else None,
        blocks=tuple(_blocks(skeleton, units, state)),
        ties=ties,
        prefix=f"{skeleton.causal.base_model_prefix}.",
        whole=cuts.unknown,
        alone=why_alone(skeleton, shell),
    )
    return measured(model, told, skeleton, calls)


def _by_kind(skeleton: Skeleton, units: Sequence[ToldUnit]) -> tuple[list[ToldUnit], list[int]]:
    """One unit of each kind, and the number of each unit's. Those of a kind are alike in all that costs something."""
    kinds: list[ToldUnit] = []
    numbers: list[int] = []
    known: dict[str, int] = {}
    for place, unit in enumerate(units):
        alike = unit.model_dump_json() + (_behaviour(skeleton, place - 1) if unit.role == "layer" else "")
        if alike not in known:
            known[alike] = len(kinds)
            same = sum(one.role == unit.role for one in kinds)
            kinds.append(unit.model_copy(update={"kind": f"{unit.kind} {same + 1}"}) if same else unit)
        numbers.append(known[alike])
    return kinds, numbers


def _behaviour(skeleton: Skeleton, number: int) -> str:
    """What layers of equal tensors may differ in, as far as it costs something."""
    types = getattr(skeleton.config, "layer_types", None)
    return f"{type(skeleton.layers[number]).__name__} {types[number] if types and number < len(types) else ''}"


def _blocks(
    skeleton: Skeleton, units: Sequence[ToldUnit], state: Mapping[str, list[StoredBox]]
) -> Iterator[tuple[ToldBlock, ...]]:
    """Of each unit, where a directory has the tensors that are its own."""
    lent = HEAD_WEIGHT if _is_tied(skeleton) else None
    for unit, begins in zip(units, _beginnings(skeleton), strict=True):
        own = [tensor for tensor in unit.every_tensor if tensor.name != lent]
        yield tuple(
            block for here, there in begins.items() for block in told_blocks(_beginning(own, here), state, there)
        )


def _beginnings(skeleton: Skeleton) -> Iterator[Mapping[str, str]]:
    """Of each unit, by what the names of its parameters begin with, what they do in the model."""
    base = skeleton.causal.base_model_prefix
    yield {"": f"{base}."}
    for number in range(len(skeleton.layers)):
        yield {"": f"{base}.{skeleton.layers_name}.{number}."}
    yield {"norm.": f"{base}.{skeleton.norm_name}.", "head.": f"{skeleton.head_name}."}


def _beginning(tensors: Sequence[ToldTensor], begin: str) -> list[ToldTensor]:
    """Those whose parameters' names begin so, by what comes behind that."""
    return [
        tensor.model_copy(update={"parameter": tensor.parameter.removeprefix(begin)})
        for tensor in tensors
        if tensor.parameter.startswith(begin)
    ]


def _is_tied(skeleton: Skeleton) -> bool:
    return skeleton.causal.get_output_embeddings().weight is skeleton.causal.get_input_embeddings().weight


def _longest(shell: Shell) -> int | None:
    """Where positions have been learnt."""
    tables = [m.num_embeddings for name, m in shell.base.named_modules() if isinstance(m, nn.Embedding)]
    return min(tables[1:], default=None)
