"""Law 2 for validation: under any plan the held-out loss is the plain model's, and training does not notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hetero.data.source import Prepared
from hetero.words.options import EvalOptions
from tests.distributed.cases import Case, find
from tests.distributed.fleet import Standing
from tests.distributed.laws import TOLERANCES, series_deviation
from tests.distributed.plain import PlainModel, PlainTraining

EVERY_OTHER = EvalOptions(every=2, batches=3)
NAMES = (
    "tp grows",
    "tp 4 next to 4, chips in another order",
    "seven layers, two stages of a pool",
    "chunks and tp mixed",
    "tied in two chunks",
    "tied, apart and together",
    "20 and 12, owners and warm-up by hand",
    "7, 2 and 1 in stages",
    "bfloat16",
)


def _validated(name: str) -> Case:
    case = find(name)
    return replace(case, job=replace(case.job, evaluation=EVERY_OTHER))


@pytest.mark.parametrize("case", [_validated(name) for name in NAMES], ids=lambda case: case.name)
def test_held_out_loss_is_the_plain_models(case: Case, fleet: Standing, text: Prepared) -> None:
    run = fleet.train(case.job, case.plan)
    plain = PlainTraining(case.job, text, PlainModel(case.job.dimensions, case.job.train.seed))
    steps, validations = [], {}
    for done, step in enumerate(plain.steps(case.job.train.steps), 1):
        steps.append(step)
        validations[done] = plain.validation_loss()
    limit = TOLERANCES[case.job.coarsest]
    assert list(run.eval_losses) == [2, 3], "after every second step, and after the last"
    found = series_deviation(list(run.eval_losses.values()), [validations[2], validations[3]])
    assert found.deviation <= limit.loss, found
    assert series_deviation(run.losses, [step.loss for step in steps]).deviation <= limit.loss
    assert series_deviation(run.norms, [step.norm for step in steps]).deviation <= limit.norm


def test_training_has_the_same_bits_however_often_it_is_validated(fleet: Standing) -> None:
    case = _validated("chunks and tp mixed")
    seldom = replace(case.job, evaluation=EvalOptions(every=1000, batches=EVERY_OTHER.batches))
    often, once = fleet.train(case.job, case.plan), fleet.train(seldom, case.plan)
    assert often.losses == once.losses
    assert often.norms == once.norms
    assert often.eval_losses[3] == once.eval_losses[3]


def test_without_validation_there_is_no_such_loss(fleet: Standing) -> None:
    case = find("tp grows")
    assert fleet.train(case.job, case.plan, until=1).eval_losses == {}
