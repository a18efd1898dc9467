"""`model` of the job file."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backends import core_schema
from hetero.models.dimensions import Dimensions
from hetero.models.errors import ModelError

# `configs` lies beside `hetero`, in a checkout as in an installation.
_PRESETS = Path(__file__).parents[2] / "configs" / "models"


class ModelOptions(BaseModel):
    """A preset's name, or dimensions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str | None = Field(None, description="a model of configs/models")
    dimensions: Dimensions | None = Field(None, description="the model's sizes, in place of a preset")

    @model_validator(mode="after")
    def _one_of_both(self) -> ModelOptions:
        if (self.preset is None) == (self.dimensions is None):
            raise ValueError("give either preset or dimensions")
        return self

    def resolve(self) -> Dimensions:
        """The model's dimensions. Raises ModelError for a preset that does not exist."""
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
