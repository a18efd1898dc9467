"""What to do about a plan whose chips have changed their speed: keep it, hand out micro-batches anew, move units at the
boundaries of its stages, or plan anew. Pure: a situation in, a decision out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from balancer.cost.ideal import ideal_tokens_per_s
from balancer.errors import BalancerError
from balancer.plan.plan import Plan
from balancer.problem import Problem
from balancer.rebalance.candidates import recut, reshared
from balancer.rebalance.decision import Decision, Reasons, Rung, Situation
from balancer.rebalance.moves import move
from balancer.rebalance.speeds import Slowness
from balancer.search.search import search
from balancer.simulate.simulate import Prediction, simulate

LEAST_GAIN = 0.03
"""Of a step. A speed that is known to a few percent is nothing to move for."""
SAFETY = 1.5
"""A gain is to be so many times what it costs: pauses differ, and speeds change again."""
HIGHER = 0.01
"""What a higher rung has to save of the rest of the run, beside the one below, to be climbed."""
SEARCH_S = 30.0
"""The best plan that is found in so long; the steps meanwhile are those of the plan that is."""
NEAR_IDEAL = 0.98
"""A plan that is so near to chips that never wait leaves nothing to search for."""


def decide(situation: Situation) -> Decision:
    """Tries the rungs from the lowest, which moves nothing but micro-batches, to the highest. Takes as long as a search
    where that might find more than the rungs below."""
    stays = simulate(situation.plan, situation.true_problem)
    best: Decision | None = None
    kept: Decision | None = None
    for rung, prediction in _rungs(situation, stays):
        reasons, fits = _reasons(situation, stays, prediction)
        if kept is None or reasons.net_s > kept.reasons.net_s:
            kept = Decision("keep", situation.plan, reasons)
        if not fits or not _is_worth_it(reasons):
            continue
        if best is None or reasons.net_s > best.reasons.net_s + HIGHER * situation.steps_left * situation.step_s:
            best = Decision(rung, prediction.plan, reasons)
    return best or kept or Decision("keep", situation.plan, _reasons(situation, stays, stays)[0])


def regret(situation: Situation, before: Plan, before_s: float) -> Decision | None:
    """Whether to go back to the plan `before`, whose steps were measured to take `before_s`: a prediction may be wrong.
    None where the change has not made steps longer by more than noise, or going back costs more than it saves."""
    moved = move(situation.plan, before, situation.problem)
    reasons = Reasons(
        slowness=_named(situation.slowness),
        step_s=situation.step_s,
        stays_s=situation.step_s,
        becomes_s=before_s,
        steps_left=situation.steps_left,
        gain_s=(situation.step_s - before_s) * situation.steps_left,
        cost_s=situation.pause_s + moved.seconds * situation.time_scale,
        moved_bytes=moved.nbytes,
    )
    fits = moved.shortage_bytes == 0
    return Decision("back", before, reasons) if fits and _is_worth_it(reasons) else None


def _rungs(situation: Situation, stays: Prediction) -> Iterator[tuple[Rung, Prediction]]:
    least_s = stays.step_s
    tries: tuple[tuple[Rung, Callable[[Prediction], Prediction | None]], ...] = (
        ("shares", reshared), ("cuts", recut), ("plan", _replanned),
    )  # fmt: skip
    for rung, find in tries:
        if least_s * NEAR_IDEAL <= _ideal_s(situation.true_problem):
            return
        if found := find(stays):
            least_s = min(least_s, found.step_s)
            yield rung, found


def _replanned(stays: Prediction) -> Prediction | None:
    """The best plan of all that leave no pool idle which is at work now: its chips would be heard of no more."""
    problem = stays.scenario.problem
    try:
        found = search(problem, deadline_s=SEARCH_S)
    except BalancerError:
        return None
    plans = [(found.plan, found.prediction), *((plan, prediction) for plan, prediction, _ in found.runners_up)]
    return next((prediction for plan, prediction in plans if plan.pools() >= stays.plan.pools()), None)


def _is_worth_it(reasons: Reasons) -> bool:
    return reasons.gain >= LEAST_GAIN and reasons.gain_s > SAFETY * reasons.cost_s


def _reasons(situation: Situation, stays: Prediction, becomes: Prediction) -> tuple[Reasons, bool]:
    """And whether there is room for the move."""
    moved = move(situation.plan, becomes.plan, situation.problem)
    gain_s = situation.step_s * (1 - becomes.step_s / stays.step_s) * situation.steps_left
    cost_s = situation.pause_s + moved.seconds * situation.time_scale
    scale = situation.time_scale
    reasons = Reasons(
        slowness=_named(situation.slowness),
        step_s=situation.step_s,
        stays_s=stays.step_s * scale,
        becomes_s=becomes.step_s * scale,
        steps_left=situation.steps_left,
        gain_s=gain_s,
        cost_s=cost_s,
        moved_bytes=moved.nbytes,
    )
    return reasons, moved.shortage_bytes == 0


def _named(slowness: Slowness) -> dict[str, float]:
    return {f"{pool}:{tp}": ratio for (pool, tp), ratio in sorted(slowness.items())}


def _ideal_s(problem: Problem) -> float:
    """A step if no chip ever waited."""
    work = problem.workload
    return work.global_batch * work.seq_len / ideal_tokens_per_s(problem.topology, work, problem.times)
