"""What is told of a model on transformers' own modules, and what follows from it without torch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hetero.layers.spec import Normal
from hetero.models.errors import ModelError
from hetero.models.hf_model import HfModel
from hetero.models.parts.head import Head
from hetero.models.provided import asking
from hetero.models.provided.asking import told_of
from hetero.models.provided.model import describe, weights
from hetero.models.provided.told import ToldBlock, ToldLogits, ToldModel, ToldTensor, ToldUnit

LAYER = (
    ToldTensor(name="q.weight", parameter="q.weight", shape=(8, 6), cut=0, std=0.02),
    ToldTensor(name="norm.weight", parameter="norm.weight", shape=(2,), share=True, value=1.0),
    ToldTensor(name="up.0", parameter="up", shape=(3, 4, 6), part=0, axis=1, cut=1, std=0.02),
    ToldTensor(name="up.1", parameter="up", shape=(3, 4, 6), part=1, axis=1, cut=1, std=0.02),
)
STORED = (
    ToldBlock(tensor="q.weight", foreign="q", here=((0, 8), (0, 6)), there=((0, 6), (0, 8)), dims=(1, 0)),
    ToldBlock(tensor="norm.weight", foreign="norm", here=((0, 2),), there=((0, 2),), dims=(0,)),
    *(
        ToldBlock(tensor=f"up.{part}", foreign=f"{{item}}.{name}", here=((0, 3), (0, 4), (0, 6)),
                  there=((0, 4), (0, 6)), dims=(1, 2))
        for part, name in enumerate(("gate", "up"))
    ),
)  # fmt: skip
TABLE = ToldTensor(name="table.weight", parameter="table.weight", shape=(5, 6), cut=0, shared=True, std=0.02)
HEAD = TABLE.model_copy(update={"name": "head.weight", "parameter": "head.weight"})
TOLD = ToldModel(
    hidden=6,
    kinds=(
        ToldUnit(kind="embedding", role="embedding", tensors=(TABLE,)),
        ToldUnit(kind="layer", role="layer", tensors=LAYER),
        ToldUnit(kind="head", role="head", tensors=(), logits=ToldLogits(tensors=(HEAD,), scale=0.5)),
    ),
    units=(0, 1, 2),
    tied="table.weight",
    blocks=(
        (
            ToldBlock(
                tensor="table.weight", foreign="table", here=((0, 5), (0, 6)), there=((0, 5), (0, 6)), dims=(0, 1)
            ),
        ),
        STORED,
        (),
    ),
    ties={"head": "table"},
    tps=(1, 2),
    alone="a layer is not told where documents end",
)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> HfModel:
    """One of its own, which is never looked into."""
    found = HfModel.of({"model_type": "somebody", "name": request.node.name})
    monkeypatch.setattr("hetero.models.provided.model.told_of", lambda _: TOLD)
    return found


def test_ranks_cut_what_is_cut_and_share_what_is_said(model: HfModel) -> None:
    found = describe(model).tensors(1, 2)
    shapes = {name: spec.layout.local_shape(1) for name, spec in found.items()}
    assert shapes == {"q.weight": (4, 6), "norm.weight": (2,), "up.0": (3, 2, 6), "up.1": (3, 2, 6)}
    assert found["norm.weight"].layout.gradients == "summed"
    assert describe(model).tensors(1, 1)["norm.weight"].layout.gradients == "equal"
    assert "does not divide" in str(describe(model).legal_tp(3))


def test_a_tied_head_is_the_embedding(model: HfModel) -> None:
    told = describe(model)
    assert told.tied == ((0, 2),)
    assert told.tensors(2, 1)["head.weight"].name == told.tensors(0, 1)["table.weight"].name


def test_a_head_that_multiplies_is_ours(model: HfModel) -> None:
    norm, head = describe(model).units[2].parts
    assert norm.tensors(2) == ()
    assert head == Head(5, 6, Normal(0.02), scale=0.5)
    assert describe(model).tensors(2, 2)["head.weight"].layout.local_shape(0) == (3, 6)


def test_the_map_has_each_expert_apart(model: HfModel) -> None:
    found = weights(model)
    experts = {f"{item}.{name}": (4, 6) for item in range(3) for name in ("gate", "up")}
    assert found.foreign == {"table": (5, 6), "q": (6, 8), "norm": (2,), **experts}
    assert found.ties == {"head": "table"}


def test_strategies_and_documents_are_refused_with_the_reason(model: HfModel) -> None:
    told = describe(model)
    work = told.workload(8, 2, "float32")
    assert set(work.refused) == {"sequence_parallel", "tp_slices", "experts"}
    assert work.units[1].recomputed["full"] != work.units[1], "a whole layer can be made again"
    assert str(told.alone).endswith(TOLD.alone)


def test_a_tensor_whose_first_values_are_not_known_is_named(model: HfModel) -> None:
    assert describe(model).unlike is None
    odd = LAYER[0].model_copy(update={"std": None})
    kinds = (TOLD.kinds[0], TOLD.kinds[1].model_copy(update={"tensors": (odd,)}), TOLD.kinds[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hetero.models.provided.model.told_of", lambda _: TOLD.model_copy(update={"kinds": kinds}))
        assert describe(HfModel.of({"model_type": "odd"})).unlike == "q.weight"


def _answering(monkeypatch: pytest.MonkeyPatch, folder: Path, answer: dict[str, Any]) -> list[Any]:
    """The process apart says this; what it was asked is noted."""
    asked: list[Any] = []

    def run(*given: Any, **named: Any) -> Any:
        asked.append(json.loads(named["input"]))
        return SimpleNamespace(stdout=f"a warning\n{json.dumps(answer)}\n", stderr="")

    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(asking.sys, "modules", {})
    monkeypatch.setattr(asking, "version", lambda _: "9")
    return asked


def test_a_model_is_looked_into_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = _answering(monkeypatch, tmp_path, {"told": TOLD.model_dump(mode="json")})
    model = HfModel.of({"model_type": "somebody", "seen": 1})
    for _ in range(2):
        told_of.cache_clear()
        assert told_of(model) == TOLD
    assert asked == [{"model_type": "somebody", "seen": 1}]


def test_what_it_refuses_is_told_as_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fault = {"key": "k", "value": 1, "rule": "no", "remedy": "other"}
    _answering(monkeypatch, tmp_path, {"fault": fault})
    with pytest.raises(ModelError) as caught:
        told_of(HfModel.of({"model_type": "somebody", "seen": 2}))
    assert (caught.value.key, caught.value.rule) == ("k", "no")


def test_without_transformers_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise asking.PackageNotFoundError

    monkeypatch.setattr(asking, "version", missing)
    with pytest.raises(ModelError, match="not installed here"):
        told_of(HfModel.of({"model_type": "somebody", "seen": 3}))
