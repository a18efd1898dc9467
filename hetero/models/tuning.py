"""Which tensors of a model train, and the adapters that stand beside its products. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hetero.models.adapter import Adapter, is_adapter
from hetero.models.architecture import Architecture
from hetero.models.errors import ModelError
from hetero.models.unit import Unit

_NEAR = 3


class LoraOptions(BaseModel):
    """Low-rank adapters: beside each product x W^T of a target, `alpha / rank` times (x A^T) B^T is added."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(8, gt=0, description="Rows of A and columns of B.")
    alpha: float = Field(16.0, gt=0, description="What adapters add is scaled by `alpha / rank`.")
    targets: Literal["all"] | tuple[str, ...] = Field(
        "all", min_length=1, description="Projections by name, such as `[q, v]`, or `all`."
    )
    train_also: tuple[str, ...] = Field(
        (), description="Tensors of the model itself that train beside the adapters, by name, as in `train.freeze`."
    )


class Tuning(BaseModel):
    """What a job trains of its model: all of it, unless told otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    freeze: tuple[str, ...] = ()
    lora: LoraOptions | None = None


EVERYTHING = Tuning()


def tuned(model: Architecture, tuning: Tuning) -> Architecture:
    """The model with its adapters, each unit of which knows what of it is frozen. Units of a kind that are not alike
    any more get kinds of their own. ModelError for a name that is nobody's, and where nothing would train."""
    if tuning == EVERYTHING:
        return model
    adapted = model if tuning.lora is None else _adapted(model, tuning.lora)
    trains = trainable(adapted, tuning)
    units = [replace(unit, frozen=_frozen(adapted, number, trains)) for number, unit in enumerate(adapted.units)]
    return replace(adapted, units=tuple(_of_own_kinds(units)))


def trainable(model: Architecture, tuning: Tuning) -> frozenset[str]:
    """The logical tensors that train. With adapters these are the adapters alone, and what trains also; of them, and of
    a whole model, all that is not frozen and can train. A tensor that two units use is frozen by either's name for
    it."""
    known = _known_by(model)
    trains = known.keys() - model.frozen
    if tuning.lora is not None:
        also = _matching(known, "train.lora.train_also", tuning.lora.train_also, model.frozen)
        trains &= {name for name in known if is_adapter(name)} | also
    trains -= _matching(known, "train.freeze", tuning.freeze)
    if not trains:
        raise ModelError("train.freeze", list(tuning.freeze), "it freezes all that would train", "freeze less")
    return frozenset(trains)


def _known_by(model: Architecture) -> dict[str, set[str]]:
    """The names that people may give to each logical tensor: its own, that within a unit, and that after the unit's
    kind."""
    found: dict[str, set[str]] = {}
    for number, unit in enumerate(model.units):
        for within, spec in model.tensors(number, 1).items():
            found.setdefault(spec.name, {spec.name}).update((within, f"{unit.kind}.{within}"))
    return found


def _matching(
    known: Mapping[str, set[str]], key: str, patterns: Sequence[str], never: Set[str] = frozenset()
) -> set[str]:
    """Each pattern names a tensor, and not only such as `never` train."""
    found: set[str] = set()
    for pattern in patterns:
        more = {name for name, names in known.items() if any(fnmatchcase(one, pattern) for one in names)}
        if not more:
            names = sorted(set().union(*known.values()))
            raise _unknown(key, pattern, "no tensor of the model has such a name", names)
        if more <= never:
            rule = f"no gradient reaches {', '.join(sorted(more)[:_NEAR])}, which never trains"
            raise ModelError(key, pattern, rule, "leave it out")
        found |= more
    return found


def _adapted(model: Architecture, lora: LoraOptions) -> Architecture:
    """With an adapter beside each product of a target."""
    known = {_target(name) for unit in model.units for name in unit.multiplied}
    for target in () if lora.targets == "all" else lora.targets:
        if target not in known:
            raise _unknown("train.lora.targets", target, "no projection of the model has this name", sorted(known))
    adapter = Adapter(lora.rank, lora.alpha / lora.rank)
    return replace(model, units=tuple(_with_adapters(unit, adapter, lora.targets) for unit in model.units))


def _with_adapters(unit: Unit, adapter: Adapter, targets: str | tuple[str, ...]) -> Unit:
    chosen = [name for name in unit.multiplied if targets == "all" or _target(name) in targets]
    return replace(unit, adapters=dict.fromkeys(chosen, adapter))


def _target(weight: str) -> str:
    return weight.removesuffix(".weight")


def _frozen(model: Architecture, unit: int, trains: Iterable[str]) -> frozenset[str]:
    return frozenset(within for within, spec in model.tensors(unit, 1).items() if spec.name not in trains)


def _of_own_kinds(units: Sequence[Unit]) -> Iterator[Unit]:
    """The first of a kind keeps its name; others that differ from it are numbered."""
    seen: dict[str, list[Unit]] = {}
    for unit in units:
        alike = seen.setdefault(unit.kind, [])
        if unit not in alike:
            alike.append(unit)
        number = alike.index(unit)
        yield replace(unit, kind=f"{unit.kind} {number + 1}") if number else unit


def _unknown(key: str, name: str, rule: str, known: Sequence[str]) -> ModelError:
    near = get_close_matches(name, known, n=_NEAR, cutoff=0.4)
    shown = near or known[: 2 * _NEAR]
    listed = ", ".join(shown)
    return ModelError(key, name, rule, f"did you mean {listed}?" if near else f"names are such as {listed}")
