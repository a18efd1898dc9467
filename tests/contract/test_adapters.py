"""What every family owes a fine-tuning, with nothing said of it in the family: adapters beside all products, and all
else frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backends.operators import Operators
from hetero.checkpoint.adapters import write_adapter
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.adapter import adapter_names, is_adapter
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture, weights
from hetero.models.tuning import LoraOptions, Tuning
from hetero.models.unit_module import build_unit
from tests.tiny_models import TINY, tiny
from tests.unit.hetero.models.whole_model import logical_tensors, loss_of, text

LORA = LoraOptions(rank=3, alpha=6.0)
TUNED = Tuning(lora=LORA)

pytestmark = pytest.mark.parametrize("kind", TINY)


class _Saved:
    """A checkpoint's tensors, as a reader gives them."""

    def __init__(self, model: HfModel) -> None:
        told = architecture(model, TUNED)
        specs = (spec for unit in range(len(told.units)) for spec in told.tensors(unit, 1).values())
        self.tensors = {spec.name: torch.randn(spec.layout.shape) for spec in specs}

    def names(self) -> frozenset[str]:
        return frozenset(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def read(self, name: str, kind: str, region: object) -> torch.Tensor:
        return self.tensors[name]

    def added(self, weight: str) -> torch.Tensor:
        a, b = adapter_names(weight)
        return self.tensors[b] @ self.tensors[a] if a in self.tensors else torch.zeros_like(self.tensors[weight])


@pytest.mark.slow
def test_adapters_alone_have_gradients(kind: str) -> None:
    model, builder = tiny(kind), Builder(TensorGroup(), Operators(), seed=3)
    told = architecture(model, TUNED)
    units = [build_unit(model, n, builder, tuning=TUNED) for n in range(len(told.units))]
    for number, unit in enumerate(units):
        assert {t.name: t.layout for t in unit.tensors()} == {
            spec.name: spec.layout for spec in told.tensors(number, 1).values()
        }
    loss_of(units, text(model)).backward()
    made = {name for name, tensor in logical_tensors(units).items() if tensor.parameter.grad is not None}
    assert made == {name for name in logical_tensors(units) if is_adapter(name)}
    layers = {name.split(".")[1] for name in made}
    assert len(layers) >= model.values.get("num_hidden_layers", 2)


@pytest.mark.slow
def test_a_directory_of_adapters_adds_what_ours_do(kind: str, tmp_path: Path) -> None:
    model = tiny(kind)
    saved, found = _Saved(model), weights(model)
    write_adapter(tmp_path, saved, found, LORA, None)  # type: ignore[arg-type]
    written = load_file(tmp_path / "adapter_model.safetensors")
    stems = {name.rpartition(".lora_")[0] for name in written}
    for stem in stems:
        name = stem.removeprefix("base_model.model.") + ".weight"
        a, b = (written[f"{stem}.lora_{factor}.weight"] for factor in "AB")
        wanted = found.write(name, saved.added)
        torch.testing.assert_close(b @ a, wanted.t() if kind == "gpt2" else wanted)
    added = {one for stem in stems for one in found.logical_of(stem.removeprefix("base_model.model.") + ".weight")}
    assert {name for name in saved.names() if adapter_names(name)[0] in saved.names()} <= added
