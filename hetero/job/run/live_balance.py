"""The balancer while a run goes on: it hears each step, and decides beside them."""

from __future__ import annotations

from threading import Thread

from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.rebalance.decision import Decision, Situation
from balancer.rebalance.policy import decide
from balancer.rebalance.rebalancer import Rebalancer
from hetero.monitoring.metrics_line import MetricsLine, StageFigures

AT_ONCE_S = 0.25
"""Most decisions take less, and are waited for; those that search for a plan are heard of with a later step."""


class LiveBalance:
    """Of a run of `steps` steps, by the `problem` that its first plan was made for."""

    def __init__(self, problem: Problem, steps: int, time_scale: float) -> None:
        self._rebalancer = Rebalancer(problem, steps, time_scale)
        self._asked: Situation | None = None
        self._thought: _Thought | None = None

    def begin(self, plan: Plan, step: int, paused_s: float | None = None) -> None:
        """See `Rebalancer.begin`. What was thought of the plan before is void."""
        self._asked = self._thought = None
        self._rebalancer.begin(plan, step, paused_s)

    def hear(self, line: MetricsLine) -> Decision | None:
        """What was decided by now, once. A step in which an emulated chip had no time for its arithmetic tells nothing
        of the chip. Raises what went wrong with a decision."""
        if not line["overrun"]:
            stages_s = {(one["pipeline"], one["stage"]): _computed_s(one) for one in line["stages"] or ()}
            self._asked = self._rebalancer.hear(line["step"], line["step_s"] or 0.0, stages_s) or self._asked
            if self._asked is None and (back := self._rebalancer.regret(line["step"])):
                return back
        if self._thought is None and self._asked is not None:
            self._thought, self._asked = _Thought(self._asked), None
            self._thought.join(AT_ONCE_S)
        if self._thought is None or self._thought.is_alive():
            return None
        thought, self._thought = self._thought, None
        if thought.error is not None:
            raise thought.error
        return thought.decision


class _Thought(Thread):
    """A decision that is made beside the run, and left behind where the run ends first."""

    def __init__(self, situation: Situation) -> None:
        super().__init__(name="rebalance", daemon=True)
        self._situation = situation
        self.decision: Decision | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.decision = decide(self._situation)
        except Exception as error:
            self.error = error


def _computed_s(stage: StageFigures) -> float:
    return sum(stage.get(part) or 0.0 for part in ("forward_s", "backward_s", "weight_s"))  # type: ignore[misc]
