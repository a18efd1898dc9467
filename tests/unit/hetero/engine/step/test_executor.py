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
@pytest.mark.parametrize("kinds", ["FI", "FW", "FIWW", "FWI", "FIB", "FBW", "FBB", "FIIW", "B", "IW"])
def test_a_backward_that_is_not_whole_is_refused_before_any_step(interpreter: type[Executor], kinds: str) -> None:
    backend = CpuBackend()
    actions = (*(Action(Kind(kind), 0, 0) for kind in kinds), STEP)
    with pytest.raises(ScheduleError, match=f"{' '.join(kinds)} of micro-batch 0 in chunk 0.*one backward after it"):
        interpreter({}, actions, {}, ["x"], (1, 1), torch.float32, Meter(backend, Waits(backend)), {}, {})
