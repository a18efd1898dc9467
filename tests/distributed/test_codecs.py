"""Training over each codec: none changes no bit, the others little, and the gate sees what they cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from balancer.plan.plan import Plan
from bridge.codec import CODECS
from bridge.options import BridgeOptions
from hetero.models.dimensions import Dimensions
from hetero.words.options import TrainOptions
from tests.distributed.cases import ADAMW, SMALL, a1, a4, k1, n1, n2, pipeline, plan
from tests.distributed.fleet import Job, Standing
from tests.distributed.laws import series_deviation
from tests.distributed.plain import PlainModel

LOSSY = [name for name, codec in CODECS.items() if codec.error_bound > 0]
TWO = plan(pipeline(4, n1(0, 3), a1(3, 6)))
MANY = plan(pipeline(4, n2(0, 3), a4(3, 6), micro_batch=2), pipeline(2, k1(0, 2), n2(2, 6)))


def _job(share: int, steps: int, precision: str = "float32") -> Job:
    train = TrainOptions(
        steps=steps, global_batch=share, precision=precision, seed=3, optimizer=ADAMW, replica_check_every=1
    )
    return Job(Dimensions(layers=2, **SMALL), train)


def test_none_gives_the_bits_of_a_native_link(fleet: Standing) -> None:
    """The same cut, once over the bridge and once inside a pool, whose messages never see a codec."""
    job, inside = _job(4, 6), plan(pipeline(4, n1(0, 3), n1(3, 6)))
    assert fleet.train(job, TWO).losses == fleet.train(job, inside).losses


@pytest.mark.parametrize(("name", "layout"), [*((name, TWO) for name in LOSSY), ("int8", MANY)])
def test_a_codec_trains_nearly_alike_with_fewer_bytes(name: str, layout: Plan, fleet: Standing) -> None:
    job = _job(sum(one.share for one in layout.pipelines), 8)
    exact = fleet.train(job, layout)
    coded = fleet.train(job, layout, bridge=BridgeOptions.model_validate({"codec": name}))
    assert 0 < series_deviation(coded.losses, exact.losses).deviation < 1e-3
    assert coded.bytes_sent < exact.bytes_sent
    assert coded.told == []


def test_bf16_costs_a_bfloat16_run_nothing(fleet: Standing) -> None:
    job, options = _job(4, 4, "bfloat16"), BridgeOptions.model_validate({"codec": "bf16"})
    exact, coded = fleet.train(job, TWO), fleet.train(job, TWO, bridge=options)
    assert (coded.losses, coded.bytes_sent) == (exact.losses, exact.bytes_sent)


def test_each_direction_and_link_has_its_own_codec(fleet: Standing) -> None:
    """Only the gradients from ascend to nvidia are coded; what saves nothing else must cost nothing else."""
    link = {"between": ["nvidia", "ascend"], "codec": {"activation": "int8", "gradient": "none"}}
    job = _job(4, 2)
    exact = fleet.train(job, TWO)
    other = fleet.train(
        job, TWO, bridge=BridgeOptions.model_validate({"links": [link | {"between": ["nvidia", "kunlun"]}]})
    )
    assert (other.losses, other.bytes_sent) == (exact.losses, exact.bytes_sent)
    coded = fleet.train(job, TWO, bridge=BridgeOptions.model_validate({"links": [link]}))
    plain = 4 * 16 * SMALL["hidden"] * 4  # bytes of a step's activations
    message = CODECS["int8"].encoded_bytes(16 * SMALL["hidden"], "float32") + 1
    assert exact.bytes_sent - coded.bytes_sent == 2 * (plain - 4 * message)


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_a_planted_outlier_falls_back_with_an_event(name: str, fleet: Standing, tmp_path: Path) -> None:
    """One feature of the residual stream is far larger than the others, as they are in large models."""
    job = _job(4, 3)
    model = PlainModel(job.dimensions, seed=3)
    with torch.no_grad():
        model.parameters["units.0.embedding.weight"][:, 5] += 1e5
    model.save(tmp_path)
    options = BridgeOptions.model_validate({"codec": {"activation": name}})
    coded = fleet.train(job, TWO, begin_from=tmp_path, bridge=options)
    exact = fleet.train(job, TWO, begin_from=tmp_path)
    (notice,) = coded.told
    assert (notice.kind, notice.pool, notice.rank, notice.step) == ("codec_fallback", "nvidia", "nvidia:0", 0)
    assert notice.data["link"] == ("nvidia", "ascend")
    assert (notice.data["purpose"], notice.data["codec"], notice.data["fallback"]) == ("activation", name, "bf16")
    assert notice.data["error"] > notice.data["limit"]
    assert series_deviation(coded.losses, exact.losses).deviation < 0.01
