"""What is said about a choice: which plans lost, and why, and what the winner leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from balancer.candidates import Candidate, Candidates
from balancer.idle import Idle, idle_chips
from balancer.ledger import TERMS, ledger
from balancer.plan import Plan
from balancer.simulate import Prediction

_MOST = 5


def runners_up(chosen: Candidate, others: Sequence[Candidate]) -> tuple[tuple[Plan, Prediction, str], ...]:
    """The best of the others (given from fast to slow) that differ in more than their warm-ups, and why each lost."""
    seen = {_signature(chosen[0])}
    kept: list[tuple[Plan, Prediction, str]] = []
    for plan, prediction in others:
        if _signature(plan) not in seen and len(kept) < _MOST:
            seen.add(_signature(plan))
            kept.append((plan, prediction, why(chosen[1], prediction)))
    return tuple(kept)


def _signature(plan: Plan) -> tuple[object, ...]:
    """What a person would call the plan: its stages, but not how deep their warm-ups are."""
    return tuple((p.share, tuple((s.pool, s.tp, s.units) for s in p.stages)) for p in plan.pipelines)


def why(best: Prediction, other: Prediction) -> str:
    """How much slower, and the ledger term that grew most."""
    idle = sorted(best.scenario.plan.pools() - other.scenario.plan.pools())
    slower = f"{other.step_s / best.step_s - 1:.1%} slower"
    if idle:
        return f"{slower}: leaves {', '.join(idle)} idle"
    mine, theirs = ledger(best), ledger(other)
    lost_s = {term: theirs[term] * other.step_s - mine[term] * best.step_s for term in TERMS}
    most = max(TERMS, key=lambda term: lost_s[term])
    return f"{slower}: more {most.replace('_', ' ')} (+{lost_s[most] / best.step_s:.1%} of the step)"


def left_idle(candidates: Candidates, found: Sequence[Candidate]) -> tuple[Idle, ...]:
    """Of candidates from fast to slow: the chips that the first leaves idle; where that is a whole pool, by what the
    search knows of the plans with it."""
    plan = found[0][0]
    return tuple(
        idle if idle.chips < idle.count else _left_out(idle, candidates, found)
        for idle in idle_chips(plan, candidates.topology, candidates.legal_tp)
    )


def _left_out(idle: Idle, candidates: Candidates, found: Sequence[Candidate]) -> Idle:
    using = next((prediction.step_s for plan, prediction in found if idle.pool in plan.pools()), None)
    if using is not None:
        why = f"the best plan with it takes {using:.4g} s a step, this one {found[0][1].step_s:.4g} s"
        return replace(idle, why=why, remedy="take the pool out of the job, or give it a faster link")
    if any(candidates.shapes(candidates.topology.only(frozenset({idle.pool})))):
        why = "no plan with it fits the memory of the chips"
        return replace(idle, why=why, remedy="use more chips there, chips with more memory, or a smaller micro_batch")
    why = "it has no division into stages with a legal tp, enough units and a micro-batch for each pipeline"
    return replace(idle, why=why, remedy=f"set pools.{idle.pool}.tp to auto, or raise train.global_batch")
