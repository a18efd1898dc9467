"""Which plan a run goes on under, and who wants it: the balancer, or a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backends.sizes import size_text
from balancer.plan.plan import Plan
from balancer.rebalance.decision import Decision
from balancer.rebalance.moves import move
from balancer.rebalance.policy import LEAST_GAIN
from hetero.errors import PARTS, explains_itself
from hetero.job.errors import JobError
from hetero.job.planning.plan_job import Planned
from hetero.job.run.live_balance import LiveBalance
from hetero.job.run.replan_request import ReplanRequest, take
from hetero.monitoring.metrics_line import MetricsLine

Tell = Callable[..., None]
"""Writes an event: its kind, and its data by name."""


@dataclass(frozen=True)
class Proposal:
    """A plan for the steps to come. `facts` are told with the event: of the balancer its reasons, of a person the name
    of the request. `back`: it is the one before."""

    planned: Planned
    by: Literal["balancer", "person"]
    facts: dict[str, Any]
    back: bool = False


class Proposals:
    """Of a run in `run_dir`. `plan_for` completes and checks a plan, and raises what explains itself; `live` is None
    where the balancer does not look after the run."""

    def __init__(
        self, run_dir: Path, steps: int, plan_for: Callable[[Plan], Planned], live: LiveBalance | None, tell: Tell
    ) -> None:
        self._run_dir, self._steps, self._plan_for, self._live, self._tell = run_dir, steps, plan_for, live, tell
        self._before: list[Plan] = []
        self._planned: Planned
        self._refused = ""
        self.next: Proposal | None = None

    def begin(self, planned: Planned, step: int, paused_s: float | None = None) -> None:
        """A plan is obeyed from `step` on; if it is the `next` one, after so long a pause. What a person has planned
        stays: the balancer has no say any more."""
        if self.next is not None:
            if self.next.back:
                self._before.pop()
            else:
                self._before.append(self._planned.plan)
            self._live = self._live if self.next.by == "balancer" else None
        self._planned, self.next = planned, None
        if self._live is not None:
            self._live.begin(planned.plan, step, paused_s)

    def hear(self, line: MetricsLine) -> bool:
        """Whether the run is to be held for the `next` plan, which is told once."""
        if self.next is not None:
            return False
        left = self._steps - line["step"] - 1
        self.next = self._of_person(left) or (self._of_balancer(line) if left else None)
        return self.next is not None

    def _of_balancer(self, line: MetricsLine) -> Proposal | None:
        try:
            decision = self._live.hear(line) if self._live else None
            if decision is None:
                return None
            if decision.rung != "keep":
                planned = self._plan_for(decision.plan)
                return Proposal(planned, "balancer", _facts(decision), back=decision.rung == "back")
        except Exception as error:  # a run does not end for want of advice
            self._tell("warning", note=f"the balancer could not decide on another plan: {error!r}")
            return None
        if decision.reasons.gain >= LEAST_GAIN:
            self._tell("kept", step=line["step"], epoch=line["epoch"], **_facts(decision))
        return None

    def _of_person(self, left: int) -> Proposal | None:
        request = self._request()
        if request is None:
            return None
        try:
            return self._checked(request, left)
        except Exception as error:
            if not explains_itself(error):
                raise
            said = {part: str(getattr(error, part)) for part in PARTS}
            self._tell("replan_refused", request=request.name, **said)
            return None

    def _request(self) -> ReplanRequest | None:
        """One that cannot be taken is told of once."""
        try:
            return take(self._run_dir)
        except JobError as error:
            if (said := f"{error.key}: {error.rule}; {error.remedy}") != self._refused:
                self._tell("warning", note=said)
            self._refused = said
            return None

    def _checked(self, request: ReplanRequest, left: int) -> Proposal:
        """Raises what explains itself."""
        if not left:
            raise JobError("--plan", "a plan", "the run has no step left", "resume it with more steps, and --plan")
        if request.plan is None and not self._before:
            raise JobError("--back", "", "the run obeys its first plan", "give the plan that it is to obey: --plan")
        planned = self._plan_for(self._before[-1] if request.plan is None else request.plan)
        now, problem = self._planned.plan, planned.prediction.scenario.problem
        if planned.plan.pipelines == now.pipelines and planned.plan.schedule == now.schedule:
            raise JobError("--plan", "a plan", "is the one that the run obeys", "give another")
        moved = move(now, planned.plan, problem)
        if moved.shortage_bytes:
            rule = f"some chip lacks {size_text(moved.shortage_bytes)} for the state of both plans while it moves"
            raise JobError("--plan", "a plan", rule, "go there by a plan between, or resume from a checkpoint with it")
        facts = {"request": request.name}
        return Proposal(planned, "person", facts, back=request.plan is None)


def _facts(decision: Decision) -> dict[str, Any]:
    reasons = decision.reasons
    return {"rung": decision.rung, "gain": reasons.gain, **asdict(reasons)}
