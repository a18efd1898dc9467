"""What an executor does with a list that it cannot interpret."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.errors import ScheduleError
from balancer.schedule.action import STEP, Action, Kind
from hetero.engine.expected import ChipPace
from hetero.engine.step.evaluation import Evaluator
from hetero.engine.step.executor import Executor
from hetero.engine.step.meter import Meter
from hetero.models.batch import Batch
from hetero.transfer.waits import Waits


@pytest.mark.parametrize("interpreter", [Executor, Evaluator])
@pytest.mark.parametrize("kinds", ["FI", "FW", "FIWW", "FWI", "FIB", "FBW", "FBB", "FIIW", "B", "IW"])
def test_a_backward_that_is_not_whole_is_refused_before_any_step(interpreter: type[Executor], kinds: str) -> None:
    backend = CpuBackend()
    actions = (*(Action(Kind(kind), 0, 0) for kind in kinds), STEP)
    with pytest.raises(ScheduleError, match=f"{' '.join(kinds)} of micro-batch 0 in chunk 0.*one backward after it"):
        interpreter({}, actions, {}, ["x"], (1, 1), torch.float32, Meter(backend, Waits(backend)), ChipPace())


def test_each_first_forward_of_a_step_waits_for_its_units_one_by_one() -> None:
    """And no rank waits for another before it has done its part for those who wait for it."""
    told: list[str] = []

    def chunk(number: int) -> Any:
        def forward(boundary: Any, batch: Any, before: Callable[[int], None] | None) -> dict[str, torch.Tensor]:
            for unit in (2 * number, 2 * number + 1):
                if before is not None:
                    before(unit)
                told.append(f"unit {unit}")
            return {"x": torch.zeros(1, 1, 1)}

        return forward

    arrival: Any = SimpleNamespace(wait=lambda unit: told.append(f"wait {unit}"), join=lambda: told.append("join"))
    flow: Any = SimpleNamespace(begin=lambda turns: None, expect=lambda: None)
    flow.receive_tensors = lambda: told.append("receive") or [torch.zeros(1, 1)]
    backend, row = CpuBackend(), [(1, 0), (0, 0), (0, 1)]
    forwards = [Action(Kind.RECV, 1, 0, "activation"), *(Action(Kind.F, chunk, m) for chunk, m in row)]
    flows, units = {("activation", 0): flow}, {0: chunk(0), 1: chunk(1)}
    meter = Meter(backend, Waits(backend))
    executor = Executor(units, (*forwards, STEP), flows, ["x"], (1, 1), torch.float32, meter, ChipPace())  # type: ignore[arg-type]
    batch = Batch(torch.zeros(0), torch.zeros(0))
    for _ in range(2):
        told.clear()
        executor.run(lambda m: batch, lambda chunk, names: None, arrival)
        assert told == [
            "join", "receive", "wait 2", "unit 2", "wait 3", "unit 3", "join",
            "wait 0", "unit 0", "wait 1", "unit 1", "join", "unit 0", "unit 1", "join",
        ]  # fmt: skip
        executor._live.clear()


def test_an_emulated_forward_waits_for_each_unit_from_its_own_time_on() -> None:
    """Whatever the parts of the backward are."""
    told: list[str] = []

    def units(boundary: Any, batch: Any, before: Callable[[int], None]) -> dict[str, torch.Tensor]:
        for unit in (0, 1):
            before(unit)
        return {"x": torch.zeros(1, 1, 1)}

    watch: Any = SimpleNamespace(paused=lambda part: nullcontext(told.append(f"from {part}")))
    meter: Any = SimpleNamespace(action=lambda *_: nullcontext(watch), mark=lambda label: nullcontext())
    arrival: Any = SimpleNamespace(wait=lambda unit: told.append(f"wait {unit}"), join=lambda: None)
    laps = {(Kind.F, 0, 0): 0.0, (Kind.F, 0, 1): 0.25, (Kind.W, 0, 1): 0.0, (Kind.W, 0, 0): 1.0}
    chunks: Any = {0: units}
    executor = Executor(
        chunks, (Action(Kind.F, 0, 0), STEP), {}, ["x"], (1, 1), torch.float32, meter, ChipPace(laps=laps)
    )
    executor.run(lambda m: Batch(torch.zeros(0), torch.zeros(0)), lambda chunk, names: None, arrival)
    assert told == ["from 0.0", "wait 0", "from 0.25", "wait 1"]
