"""What is said about a choice: which plans lost, and why, and what the winner leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.ledger import TERMS, ledger
from balancer.plan import Plan
from balancer.simulate import Prediction
from balancer.topology import Topology

_MOST = 5


def runners_up(chosen: Prediction, others: Sequence[Prediction]) -> tuple[tuple[Plan, Prediction, str], ...]:
    """The best of the others (given from fast to slow) that differ in more than their warm-ups, and why each lost."""
    seen = {_signature(chosen.plan)}
    kept: list[tuple[Plan, Prediction, str]] = []
    for other in others:
        if _signature(other.plan) not in seen and len(kept) < _MOST:
            seen.add(_signature(other.plan))
            kept.append((other.plan, other, why(chosen, other)))
    return tuple(kept)


def _signature(plan: Plan) -> tuple[object, ...]:
    """What a person would call the plan: its stages, but not how deep their warm-ups are."""
    return tuple((p.share, tuple((s.pool, s.tp, s.units) for s in p.stages)) for p in plan.pipelines)


def why(best: Prediction, other: Prediction) -> str:
    """How much slower, and the ledger term that grew most."""
    idle = sorted(best.plan.pools() - other.plan.pools())
    slower = f"{other.step_s / best.step_s - 1:.1%} slower"
    if idle:
        return f"{slower}: leaves {', '.join(idle)} idle"
    mine, theirs = ledger(best), ledger(other)
    lost_s = {term: theirs[term] * other.step_s - mine[term] * best.step_s for term in TERMS}
    most = max(TERMS, key=lambda term: lost_s[term])
    return f"{slower}: more {most.replace('_', ' ')} (+{lost_s[most] / best.step_s:.1%} of the step)"


def notes(topology: Topology, found: Sequence[Prediction]) -> tuple[str, ...]:
    """Of predictions from fast to slow: what the first leaves idle, and what it would take to use that."""
    best, *_ = found
    said = []
    for name in (pool.name for pool in topology.pools if pool.name not in best.plan.pools()):
        using = next((other.step_s for other in found if name in other.plan.pools()), None)
        instead = f"the best plan with it takes {using:.4g} s a step" if using else "no plan with it fits"
        said.append(f"pool {name} is left idle: {instead}, this one {best.step_s:.4g} s")
    return tuple(said)
