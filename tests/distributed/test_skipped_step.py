"""A gradient that is not finite, on whatever rank, changes no parameter on any."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from bridge.options import BridgeOptions
from hetero.checkpoint.pieces import CheckpointReader
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.options import LossScaleOptions, TrainOptions
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
    assert [step.skipped for step in run.totals] == [True, True]
    with CheckpointReader(CheckpointStore(tmp_path / "after"), 2) as reader:
        for name, value in model.parameters.items():
            assert reader.kinds(name) == {"parameter"}
            whole = tuple((0, extent) for extent in value.shape)
            assert torch.equal(reader.read(name, "parameter", whole), value.detach())


NARROW = LossScaleOptions(initial=2.0**32, grow_every=4)


def test_too_large_a_loss_scale_skips_in_all_pools_until_it_fits(fleet: Standing, tmp_path: Path) -> None:
    """Only the pool in float16 can overflow. What the others made of those steps is dropped with it."""
    train = TrainOptions(
        steps=30, global_batch=4, precision="bfloat16", optimizer=ADAMW, loss_scale=NARROW, replica_check_every=1
    )
    job = Job(Dimensions(layers=2, **SMALL), train, precisions={"ascend": "float16"})
    layout, other = plan(pipeline(3, n1(0, 3), a2(3, 6)), pipeline(1, k1(0, 6))), plan(pipeline(4, a2(0, 6)))
    whole = fleet.train(job, layout)
    scales = [step.loss_scale for step in whole.totals]
    skipped = [step.skipped for step in whole.totals]
    count = skipped.index(False)
    assert count > 5
    assert scales[: count + 1] == [2.0 ** (32 - step) for step in range(count + 1)]
    assert len(set(whole.losses[: count + 1])) > 1, "other text in every step"
    assert all(math.isfinite(loss) for loss in whole.losses)
    assert whole.losses[-1] < whole.losses[0]

    until = count // 2
    fleet.train(job, layout, until=until, save_to=tmp_path / "skipping")
    second = fleet.train(job, other, start=until, until=count + 2, begin_from=tmp_path / "skipping")
    assert second.totals[0].loss_scale == scales[until], "it goes on where it was, under another plan"


def test_without_float16_nothing_is_scaled(fleet: Standing) -> None:
    """Nor where the pool that would compute in it is left out."""
    train = TrainOptions(steps=2, global_batch=4, optimizer=ADAMW, loss_scale=NARROW)
    job = Job(Dimensions(layers=2, **SMALL), train, precisions={"ascend": "float16"})
    run = fleet.train(job, plan(pipeline(4, n1(0, 6))))
    assert [(step.loss_scale, step.skipped) for step in run.totals] == [(1.0, False)] * 2
