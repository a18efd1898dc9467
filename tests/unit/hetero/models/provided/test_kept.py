"""What layers of transformers' own modules keep for backward is what is told."""

from __future__ import annotations

import pytest
import torch

from backends.operators import Operators
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel
from hetero.models.provided import calls
from hetero.models.provided.part import ProvidedPart
from hetero.models.registry import architecture
from hetero.models.unit import STREAM
from hetero.models.unit_module import build_unit
from tests.tiny_provided import tiny_provided

pytestmark = pytest.mark.slow

LENGTH = 160
DTYPES = [torch.float32, torch.bfloat16]


def _wider(kind: str) -> HfModel:
    """Large enough that nothing beside its tensors counts, and samples longer than its windows."""
    return HfModel.of({**tiny_provided(kind).values, "max_position_embeddings": 2 * LENGTH})


def _sample(documents: int) -> Batch:
    tokens_BT, place_T = torch.zeros(1, LENGTH, dtype=torch.int64), torch.arange(LENGTH)[None]
    each = LENGTH // documents
    return Batch(tokens_BT, tokens_BT, *((place_T % each, place_T // each) if documents > 1 else ()))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("documents", [1, 4])
@pytest.mark.parametrize("kind", ["arcee", "cohere", "exaone4", "minicpm3", "phi"])
def test_a_layer_keeps_what_is_told(kind: str, documents: int, dtype: torch.dtype) -> None:
    """The second, whose input the first has made."""
    model, sample = _wider(kind), _sample(documents)
    told, builder = architecture(model), Builder(TensorGroup(), Operators(), dtype)
    units = [build_unit(model, number, builder) for number in (1, 2)]
    x_BTD = torch.randn(1, LENGTH, told.boundary[STREAM], dtype=dtype, requires_grad=True)
    units[0]({STREAM: x_BTD}, sample)  # what they share is there
    now = []
    with LiveBytes() as live:
        boundary = {STREAM: x_BTD}
        for unit in units:
            boundary = unit(boundary, sample)
            now.append(live.now)
    work = told.workload(LENGTH, 1, _name(dtype), documents > 1).units[2]
    assert now[1] - now[0] == pytest.approx(work.activation_bytes, rel=0.05)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("documents", [1, 4])
@pytest.mark.parametrize("kind", ["arcee", "exaone4", "mimo_v2_flash"])
def test_what_layers_share_is_told_once_by_name(kind: str, documents: int, dtype: torch.dtype) -> None:
    model, sample = _wider(kind), _sample(documents)
    told = architecture(model)
    part, shared = told.units[1].parts[0], dict[str, int]()
    assert isinstance(part, ProvidedPart)
    for unit in told.workload(LENGTH, 1, _name(dtype)).units[1:3]:
        shared |= unit.masks if documents > 1 else unit.plain_masks
    calls._plain.cache_clear()
    calls._shell(model, part.gives)  # is there
    with LiveBytes() as live:
        found = calls.calls_of(part, sample, dtype)
        now = live.now
    assert found
    assert now == pytest.approx(sum(shared.values()), rel=0.02)
