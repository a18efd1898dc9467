"""Ranks whose backwards come in two actions, though the schedule has whole ones. A plan's `job_fingerprint` says when a
weight gradient is made: so many input gradients later, or at the end, and what is wrong with one, behind a comma."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from balancer.plan.plan import PipelinePlan
from balancer.schedule.action import Action, Actions, Kind
from balancer.schedule.consistency import check
from balancer.schedule.lowering import actions_of
from hetero.engine import epoch as engine_epoch
from hetero.engine.epoch import Epoch

WAYS = {"W at once": 0, "W two later": 2, "W at the end": 1 << 30}


class SplitEpoch(Epoch):
    def __init__(self, spec: Any, *others: Any) -> None:
        way = spec.plan.job_fingerprint.partition(",")[0]
        if way not in WAYS:
            super().__init__(spec, *others)
            return
        with patch.object(engine_epoch, "actions_of", lambda *asked: _split(*asked, WAYS[way])):
            super().__init__(spec, *others)


def _split(pipeline: PipelinePlan, name: str, later: int) -> tuple[Actions, ...]:
    lists = tuple(tuple(_in_two(actions, later)) for actions in actions_of(pipeline, name))
    check(lists)
    return lists


def _in_two(actions: Actions, later: int) -> Iterator[Action]:
    """A lowered list with I for B, behind which `later` more may come before its W. A gradient is sent before."""
    waiting: deque[Action] = deque()
    for action in actions:
        most = 0 if action.kind is Kind.SYNC else later
        while action.kind is not Kind.SEND and len(waiting) > most:
            yield waiting.popleft()
        if action.kind is Kind.B:
            waiting.append(action._replace(kind=Kind.W))
            action = action._replace(kind=Kind.I)
        yield action
