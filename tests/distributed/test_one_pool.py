"""Law 1 inside one pool, whose chips obey the law of collectives: many messages between the same two of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from balancer.plan.plan import Plan
from hetero.data.source import Prepared
from hetero.models.dimensions import Dimensions
from hetero.words.options import TrainOptions
from tests.distributed.cases import SGD, SMALL, n1, n2, pipeline, plan
from tests.distributed.fleet import Job, Standing
from tests.distributed.laws import TOLERANCES, series_deviation, tensor_deviation
from tests.distributed.plain import PlainModel, PlainTraining

PLANS = {
    "tp 2": plan(pipeline(6, n2(0, 12))),
    "pp 2": plan(pipeline(6, n1(0, 7), n1(7, 12))),
    "dp 2": plan(pipeline(3, n1(0, 12)), pipeline(3, n1(0, 12))),
    "chunks": plan(pipeline(6, n2(0, 3, 6, 9), n2(3, 6, 9, 12))),
    "pipelines": plan(pipeline(3, n1(0, 5, 7, 9), n1(5, 7, 9, 12)), pipeline(3, n1(0, 4, 6, 7), n1(4, 6, 7, 12))),
    "replicas": plan(pipeline(4, n2(0, 12), micro_batch=2), pipeline(2, n1(0, 7), n1(7, 12))),
}


@pytest.mark.parametrize("layout", PLANS.values(), ids=PLANS)
def test_messages_of_a_pair_do_not_mix(layout: Plan, fleet: Standing, text: Prepared, tmp_path: Path) -> None:
    train = TrainOptions(steps=3, global_batch=6, optimizer=SGD, replica_check_every=3)
    job = Job(Dimensions(layers=5, tie_embeddings=True, **{**SMALL, "kv_heads": 1}), train)
    model, limit = PlainModel(job.dimensions, seed=0).unsettle(), TOLERANCES["float32"]
    model.save(tmp_path)
    run = fleet.train(job, layout, begin_from=tmp_path, capture=[2])
    plain = list(PlainTraining(job, text, model).steps(3))
    assert series_deviation(run.losses, [step.loss for step in plain]).deviation <= limit.loss
    assert tensor_deviation(run.gradients(2), plain[2].gradients, limit.floor).deviation <= limit.gradient
