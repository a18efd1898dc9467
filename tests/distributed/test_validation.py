"""Law 2 for validation: training does not notice it. tests/distributed/test_equal_training.py compares held-out losses
with the plain model's."""

from __future__ import annotations

from dataclasses import replace

from hetero.words.options import EvalOptions
from tests.distributed.cases import find
from tests.distributed.fleet import Standing


def test_training_has_the_same_bits_however_often_it_is_validated(fleet: Standing) -> None:
    case = find("tp grows")
    often, once = (
        fleet.train(replace(case.job, evaluation=EvalOptions(every=every, batches=3)), case.plan) for every in (2, 1000)
    )
    assert often.losses == once.losses
    assert often.norms == once.norms
    assert often.eval_losses[3] == once.eval_losses[3]


def test_without_validation_there_is_no_such_loss(fleet: Standing) -> None:
    case = find("tp grows")
    assert fleet.train(case.job, case.plan, until=1).eval_losses == {}
