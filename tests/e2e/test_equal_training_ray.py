"""Law 2 with nothing in place of the real thing but the chips: Ray actors as agents, 50 steps, four plans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hetero.cluster.onray.actors import RayAgents
from hetero.cluster.onray.runtime import ray_runtime
from hetero.data.source import Prepared
from tests.distributed.cases import Case, pick
from tests.distributed.fleet import Standing
from tests.distributed.laws import TOLERANCES, series_deviation
from tests.distributed.plain import PlainModel, PlainTraining
from tests.distributed.text import every_byte

CASES = pick(lambda case: case.job.train.steps == 50 and case.job.train.precision == "float32")

pytestmark = pytest.mark.exhaustive  # in every run are fifty steps without Ray, and fewer over it in test_quickstart


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return every_byte(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def fleet(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with ray_runtime(), Standing(text, tmp_path_factory.mktemp("fleet")).up(RayAgents()) as standing:
        yield standing


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fifty_steps(case: Case, fleet: Standing, text: Prepared) -> None:
    run = fleet.train(case.job, case.plan)
    model = PlainModel(case.job.dimensions, case.job.train.seed)
    plain = list(PlainTraining(case.job, text, model).steps(case.job.train.steps))
    limit = TOLERANCES["float32"]
    loss = series_deviation(run.losses, [step.loss for step in plain])
    norm = series_deviation(run.norms, [step.norm for step in plain])
    assert loss.deviation <= limit.loss, loss
    assert norm.deviation <= limit.norm, norm


def test_the_cases_cover_what_they_should() -> None:
    assert len(CASES) == 4
