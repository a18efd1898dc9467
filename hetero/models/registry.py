"""Families of models by name: the files of `families`, each imported when it is first used."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from hetero.models import families
from hetero.models.architecture import Architecture
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel
from hetero.models.provided import model as provided
from hetero.models.provided.asking import is_there
from hetero.models.tuning import EVERYTHING, Tuning, tuned
from hetero.models.weight_map import WeightMap

OF_DIMENSIONS = ("llama",)
"""The families that sizes alone tell."""
MOST_LAYERS = 1000
"""Of a model, so that a slip in its description is told before its layers are listed."""
NATIVE, TRANSFORMERS = "native", "transformers"
"""Who serves a model: our own parts, cut between half layers, for every strategy; or transformers' own modules."""


def provider(description: ModelDescription) -> str:
    """By the type alone: whether transformers' modules can be units is told by `architecture`."""
    native = isinstance(description, Dimensions) or description.model_type in family_names()
    return NATIVE if native else TRANSFORMERS


def served(description: ModelDescription) -> str:
    """In words, with what it costs. Raises as `architecture`."""
    name = provider(description)
    if name == NATIVE:
        return f"served by the {name} provider"
    tps = [str(tp) for tp in range(2, _MOST_TP) if architecture(description).legal_tp(tp) is None]
    why = architecture(description).legal_tp(2)
    split = f"split over {', '.join(tps)} chips" if tps else f"not split over chips: {why}"
    refused = ", ".join(architecture(description).refused)
    packed = "samples of one document" if architecture(description).alone else "samples of several documents"
    how = f"whole layers, {split}; no {refused}; {packed}"
    return f"served by the {name} provider: {how}"


_MOST_TP = 65


@cache
def family_names() -> tuple[str, ...]:
    """The known families, sorted: types of models that a Hugging Face directory may be of."""
    return tuple(sorted(module.name for module in iter_modules(families.__path__)))


@cache
def architecture(description: ModelDescription, tuning: Tuning = EVERYTHING) -> Architecture:
    """The model that is described, with what a job trains of it; ModelError if there is no such family, or it does not
    know what is asked of it, and as `tuned`."""
    _check_layers(description)
    if isinstance(description, Dimensions):
        family = _family("model.dimensions.family", description.family, OF_DIMENSIONS)
    else:
        family = provided if _is_provided(description) else _family("model.hf", description.model_type, family_names())
    found: Architecture = family.describe(description)
    return tuned(found, tuning)


@cache
def weights(model: HfModel) -> WeightMap:
    """Where its directory has the model's tensors; ModelError as `architecture`."""
    _check_layers(model)
    if _is_provided(model):
        return provided.weights(model)
    found: WeightMap = _family("model.hf", model.model_type, family_names()).weights(model)
    return found


def _check_layers(model: ModelDescription) -> None:
    """Before they are listed. What config.json says, if it says a number, is what a family reads first."""
    if isinstance(model, Dimensions):
        layers = model.layers
    else:
        told = (model.values.get(key) for key in ("num_hidden_layers", "n_layer"))
        layers = max((number for number in told if isinstance(number, int)), default=0)
    if layers > MOST_LAYERS:
        raise ModelError("model", f"{layers} layers", f"has at most {MOST_LAYERS} layers", "use fewer")


def _is_provided(model: HfModel) -> bool:
    """Whether it is none of ours, and one that transformers has modules of."""
    return model.model_type not in family_names() and is_there(model.model_type)


def _family(key: str, name: str, known: tuple[str, ...]) -> ModuleType:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else "use one of them"
        more = "" if known == OF_DIMENSIONS else ", and causal models of transformers, where it is installed"
        raise ModelError(key, name, f"known architectures: {', '.join(known)}{more}", remedy)
    return import_module(f"{families.__name__}.{name}")
