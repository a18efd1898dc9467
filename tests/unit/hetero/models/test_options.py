"""The job file's `model`: presets, dimensions, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hetero.huggingface.errors import HfError
from hetero.models.dimensions import Dimensions
from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel
from hetero.models.options import ModelOptions, load_preset, preset_names
from hetero.models.registry import architecture
from tests.unit.hetero.huggingface.written import write_folder
from tests.unit.hetero.models.whole_model import SMALL, small


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-tiny", 0.79e6),
        ("llama-small", 5.94e6),
        ("llama-7b", 6.74e9),
        ("llama-13b", 13.02e9),
        ("llama-70b", 68.98e9),
    ],
)
def test_presets_have_their_known_size(name: str, parameters: float) -> None:
    dims = ModelOptions(preset=name).resolve()
    assert architecture(dims).parameter_count == pytest.approx(parameters, rel=0.01)


def test_every_preset_is_of_a_known_family() -> None:
    assert len(preset_names()) >= 5
    for name in preset_names():
        dims = load_preset(name)
        assert architecture(dims).legal_tp(2) is None


def test_unknown_preset_says_what_is_near() -> None:
    with pytest.raises(ModelError, match="did you mean llama-tiny") as raised:
        ModelOptions(preset="lama-tiny").resolve()
    assert (raised.value.key, raised.value.value) == ("model.preset", "lama-tiny")


def test_dimensions_in_place_of_a_preset() -> None:
    assert ModelOptions(dimensions=small()).resolve() == small()


@pytest.mark.parametrize(
    "given", [{}, {"preset": "llama-tiny", "dimensions": SMALL}, {"preset": "llama-tiny", "hf": "org/name"}]
)
def test_one_of_preset_dimensions_and_directory(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="one of preset, dimensions and hf"):
        ModelOptions.model_validate(given)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"hidden": 60}, "hidden"),
        ({"hidden": 8}, "even head size"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"layers": 0}, "layers"),
        ({"vocab": 1}, "vocab"),
        ({"vocab": (1 << 31) + 1}, "vocab"),
        ({"head": 8}, "head"),
    ],
)
def test_impossible_dimensions(changes: dict[str, int], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        Dimensions.model_validate({**SMALL, **changes})


def test_a_directory_is_a_model_by_its_configuration_alone(tmp_path: Path) -> None:
    config = {"model_type": "llama", "vocab_size": 300}
    folder = str(write_folder(tmp_path, config=config))
    options = ModelOptions(hf=folder)
    assert options.resolve() == HfModel.of(config)
    assert (options.weights, options.told()) == (folder, f"llama of {folder}, from its weights")
    random = ModelOptions(hf=folder, init="random")
    assert (random.weights, random.told()) == (None, f"llama of {folder}, random")
    assert ModelOptions(preset="llama-tiny").weights is None


def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(HfError, match="no such folder"):
        ModelOptions(hf="./nowhere").resolve()


def test_other_models_have_no_weights_to_begin_from() -> None:
    with pytest.raises(ValidationError, match="init is of an hf model alone"):
        ModelOptions(preset="llama-tiny", init="weights")
