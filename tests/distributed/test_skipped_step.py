"""A gradient that is not finite, on whatever rank, changes no parameter on any."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from bridge.options import BridgeOptions
from hetero.checkpoint.pieces import Reader
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.options import TrainOptions
from hetero.models.dimensions import Dimensions
from tests.distributed.cases import ADAMW, SMALL, a2, k1, n1, pipeline, plan
from tests.distributed.fleet import Job, Standing
from tests.distributed.plain import PlainModel


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_nobody_updates(codec: str, fleet: Standing, tmp_path: Path) -> None:
    job = Job(
        Dimensions(layers=2, **SMALL), TrainOptions(steps=2, global_batch=4, optimizer=ADAMW, replica_check_every=0)
    )
    model = PlainModel(job.dimensions, seed=0)
    with torch.no_grad():
        model.parameters["units.3.q.weight"][0, 0] = math.inf
    model.save(tmp_path / "before")
    layout = plan(pipeline(3, n1(0, 3), a2(3, 6)), pipeline(1, k1(0, 6)))
    folders = {"begin_from": tmp_path / "before", "save_to": tmp_path / "after"}
    run = fleet.train(job, layout, bridge=BridgeOptions.model_validate({"codec": codec}), **folders)
    assert [step["skipped"] for step in run.totals] == [True, True]
    with Reader(CheckpointStore(tmp_path / "after"), 2) as reader:
        for name, value in model.parameters.items():
            assert reader.kinds(name) == {"parameter"}
            whole = tuple((0, extent) for extent in value.shape)
            assert torch.equal(reader.read(name, "parameter", whole), value.detach())
