"""`model` of the job file."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backends import core_schema
from hetero.huggingface.folder import HfFolder
from hetero.huggingface.hub import place
from hetero.models.description import ModelDescription
from hetero.models.dimensions import Dimensions
from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel
from hetero.paths import PathText

# `configs` lies beside `hetero`, in a checkout as in an installation.
_PRESETS = Path(__file__).parents[2] / "configs" / "models"


class ModelOptions(BaseModel):
    """A preset's name, dimensions, or the directory of a Hugging Face model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str | None = Field(None, description="a model of configs/models")
    dimensions: Dimensions | None = Field(None, description="the model's sizes, in place of a preset")

    hf: PathText | None = Field(
        None,
        description="a directory with config.json and safetensors, relative to the job file, or a model's name in the "
        "local cache of the Hugging Face hub",
    )
    init: Literal["weights", "random"] | None = Field(
        None, description="where the values of an `hf` model begin: in its directory, as by default, or at random"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> ModelOptions:
        if sum(one is not None for one in (self.preset, self.dimensions, self.hf)) != 1:
            raise ValueError("give one of preset, dimensions and hf")
        if self.init is not None and self.hf is None:
            raise ValueError("init is of an hf model alone; others begin at random")
        return self

    @property
    def weights(self) -> str | None:
        """The directory that the values begin in, as the user named it; None where they begin at random."""
        return None if self.init == "random" else self.hf

    def told(self) -> str:
        """In words, such as "qwen2 of ./model, from its weights"."""
        if self.hf is None:
            return self.preset or "by dimensions"
        begins = "from its weights" if self.weights else "random"
        return f"{self.folder().config['model_type']} of {self.hf}, {begins}"

    def folder(self) -> HfFolder:
        """The directory of an `hf` model, on this machine. Raises HfError if it is not there."""
        assert self.hf is not None
        return HfFolder(place(self.hf), self.hf)

    def resolve(self) -> ModelDescription:
        """The model. Raises ModelError for a preset that does not exist, HfError for a directory."""
        if self.hf is not None:
            return HfModel.of(self.folder().config)
        return self.dimensions if self.dimensions is not None else load_preset(str(self.preset))


def preset_names() -> tuple[str, ...]:
    """The models of configs/models, sorted."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.yaml")))


@cache
def load_preset(name: str) -> Dimensions:
    """The dimensions in configs/models/NAME.yaml. Raises ModelError, and says which names are near."""
    if name not in preset_names():
        near = get_close_matches(name, preset_names(), n=1)
        remedy = f"did you mean {near[0]}?" if near else "use one of them, or give dimensions"
        raise ModelError("model.preset", name, f"presets are {', '.join(preset_names())}", remedy)
    return Dimensions.model_validate(core_schema.load((_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))
