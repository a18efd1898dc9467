"""What a measured step took beyond its prediction, by cause.

The stages' own clocks say how long they computed, updated and waited; what is left of a step is the host's, between
actions. The step is simulated once more with computations as slow as they were, and once more with the host's time
between them. What is still missing came later than either explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from balancer.plan.plan import Place
from balancer.schedule.action import Kind
from balancer.simulate.scenario import Pace
from balancer.simulate.simulate import Prediction, run

CAUSES = ("slower_chips", "slower_update", "host", "slower_links")


class MeasuredStage(NamedTuple):
    """Seconds of a step that a stage computed, updated, and waited, of which `link_s` for bytes on their way between
    pools."""

    compute_s: float
    update_s: float
    wait_s: float
    link_s: float


@dataclass(frozen=True)
class MeasuredStep:
    """`stages` that nobody has told of are taken to be as predicted."""

    step_s: float
    stages: Mapping[Place, MeasuredStage]


def missed(prediction: Prediction, measured: MeasuredStep, exposed_s: float) -> dict[str, float]:
    """By cause, seconds of the step; negative where it was faster than predicted. `exposed_s` is what links are
    predicted to add.

    slower_chips   computations that took longer than the times that the prediction is by
    slower_update  the same of the update
    host           what ranks do between their actions
    slower_links   messages that came later than that explains, as far as ranks have waited longer for links
    """
    scenario = prediction.scenario
    ratios = {
        place: stage.compute_s / prediction.busy_s[place]
        for place, stage in measured.stages.items()
        if place in prediction.busy_s and stage.compute_s > 0
    }
    pauses = {place: _pause_s(prediction, measured, place) for place in ratios}
    as_slow = run(replace(scenario, paces={place: Pace(ratio) for place, ratio in ratios.items()})).step_s
    paused = run(replace(scenario, paces={place: Pace(ratios[place], pauses[place]) for place in ratios})).step_s
    found = {
        "slower_chips": as_slow - prediction.step_s,
        "slower_update": _slower_update_s(prediction, measured),
        "host": paused - as_slow,
    }
    late_s = measured.step_s - prediction.step_s - sum(found.values())
    waited_s = max((stage.link_s for stage in measured.stages.values()), default=0.0)
    return found | {"slower_links": max(0.0, min(late_s, waited_s - exposed_s))}


def _pause_s(prediction: Prediction, measured: MeasuredStep, place: Place) -> float:
    """Between two actions of a stage."""
    stage = measured.stages[place]
    host_s = measured.step_s - stage.compute_s - stage.update_s - stage.wait_s
    return max(0.0, host_s) / (len(prediction.spans[place]) - 1)


def _slower_update_s(prediction: Prediction, measured: MeasuredStep) -> float:
    """Of the stages that take longest for it."""
    expected = (end - start for place in measured.stages for action, start, end in prediction.spans[place][-1:]
                if action.kind is Kind.STEP)  # fmt: skip
    return max((stage.update_s for stage in measured.stages.values()), default=0.0) - max(expected, default=0.0)
