"""What an executor does with a list that it cannot interpret."""

from __future__ import annotations

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.errors import ScheduleError
from balancer.schedule.action import STEP, Action, Kind
from hetero.engine.step.evaluation import Evaluator
from hetero.engine.step.executor import Executor
from hetero.engine.step.meter import Meter
from hetero.transfer.waits import Waits


@pytest.mark.parametrize("interpreter", [Executor, Evaluator])
@pytest.mark.parametrize("kind", [Kind.I, Kind.W])
def test_an_action_that_it_does_not_know_is_refused_before_any_step(interpreter: type[Executor], kind: Kind) -> None:
    backend = CpuBackend()
    actions = (Action(Kind.F, 0, 0), Action(kind, 0, 0), STEP)
    with pytest.raises(ScheduleError, match=f"{kind.value}0.*the executor knows F, B, SEND, RECV, SYNC, STEP"):
        interpreter({}, actions, {}, ["x"], (1, 1), torch.float32, Meter(backend, Waits(backend)), {}, {})
