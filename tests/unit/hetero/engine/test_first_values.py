"""First values are made where they are used, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from backends.cpu import CpuBackend
from balancer.plan import PipelinePlan, Plan, StagePlan
from bridge.rank import RankId
from hetero.engine import epoch
from hetero.engine.epoch import Epoch
from hetero.engine.stage import Place, Stage
from hetero.layers import builder
from hetero.layers.group import TensorGroup
from hetero.models.dimensions import Dimensions

TINY = Dimensions(layers=1, hidden=16, heads=2, kv_heads=2, ffn=32, vocab=50)
PLACE = Place(0, 0, 0, (RankId("a", 0),))


class Reached(Exception):
    """The stage is about to be made."""


def test_a_stage_that_is_loaded_next_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "fill_normal", lambda *_: pytest.fail("made first values"))
    stages = (StagePlan(pool="a", units=((0, 4),), chips=(0,)),)
    plan = Plan(pipelines=(PipelinePlan(share=1, micro_batch=1, stages=stages),))
    stage = Stage(TINY, plan, PLACE, TensorGroup(), CpuBackend(), "float32", 0, fill=False)
    assert stage.parameters


@pytest.mark.parametrize(("resume_folder", "fill"), [(None, True), ("/a/run", False)])
def test_an_epoch_that_resumes_has_none_made(
    monkeypatch: pytest.MonkeyPatch, resume_folder: str | None, fill: bool
) -> None:
    def make(*_: Any, **options: Any) -> None:
        assert options == {"fill": fill}
        raise Reached

    monkeypatch.setattr(epoch, "Stage", make)
    monkeypatch.setattr(epoch, "Carriers", lambda *_: None)
    monkeypatch.setattr(Epoch, "_claim_memory", lambda _: None)
    monkeypatch.setattr(Epoch, "_precision", "float32")
    train = SimpleNamespace(seed=0)
    told = {"start": 0, "epoch": 0, "bridge": None, "dimensions": TINY, "plan": None, "train": train}
    spec = SimpleNamespace(**told, resume_folder=resume_folder)
    world = SimpleNamespace(backend=CpuBackend(), rank=RankId("a", 0))
    groups = SimpleNamespace(up={}, down={}, tensor=TensorGroup())
    with pytest.raises(Reached):
        Epoch(cast(Any, spec), PLACE, cast(Any, world), cast(Any, groups), [], cast(Any, None))
