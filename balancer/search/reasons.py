"""What is said about a choice: which plans lost, and why, and what the winner leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast

from balancer.completion.idle import Idle, idle_chips
from balancer.memory.need import memory_need
from balancer.plan.plan import Place, Plan
from balancer.problem import Problem
from balancer.search.ledger import TERMS, ledger
from balancer.search.space import LayoutSpace
from balancer.simulate.simulate import Prediction

_MOST = 5
_FULL = 0.97
"""Of its memory, from which on a chip is full."""
Binding = Literal["memory", "rounding", "imbalance", "bubble", "link", "recompute", "idle", "other"]


@dataclass(frozen=True)
class Loss:
    """How many `seconds` a plan's step is longer than the chosen one's, and the term of the ledger that grew most, by
    `term_s`. `binds` is what holds the plan itself back: the fullest chip's memory, at `stage`, where units are uneven
    because of it or made again, else the largest term of its own ledger."""

    seconds: float
    term: str
    term_s: float
    binds: Binding
    stage: Place | None = None


class RunnerUp(NamedTuple):
    """Another plan, completed, and why it lost, in words and as numbers."""

    prediction: Prediction
    why: str
    loss: Loss


def compared(chosen: Prediction, others: Sequence[Prediction]) -> tuple[Loss, list[RunnerUp]]:
    """What holds the chosen plan back; and the best of the others (given from fast to slow) that differ in more than
    their warm-ups."""
    mine, seen, kept = ledger(chosen), {_signature(chosen.plan)}, list[RunnerUp]()
    for other in others:
        if _signature(other.plan) not in seen and len(kept) < _MOST:
            seen.add(_signature(other.plan))
            loss = _loss(chosen, other, mine, ledger(other))
            kept.append(RunnerUp(other, _why(chosen, other, loss), loss))
    return _loss(chosen, chosen, mine, mine), kept


def _loss(chosen: Prediction, other: Prediction, mine: Mapping[str, float], theirs: Mapping[str, float]) -> Loss:
    lost_s = {term: theirs[term] * other.step_s - mine[term] * chosen.step_s for term in TERMS}
    term = max(TERMS, key=lambda term: lost_s[term])
    most = max(TERMS, key=lambda term: theirs[term])
    full = _fullest(other) if most in ("recompute", "imbalance") else None
    names: dict[str, Binding] = {"exposed_link": "link"}
    binds: Binding = "memory" if full else names.get(most, cast(Binding, most))
    return Loss(other.step_s - chosen.step_s, term, lost_s[term], binds, full)


def _why(best: Prediction, other: Prediction, loss: Loss) -> str:
    """How much slower, and the ledger term that grew most beside those of the best."""
    idle = sorted(best.plan.pools() - other.plan.pools())
    slower = f"{other.step_s / best.step_s - 1:.1%} slower"
    if idle:
        return f"{slower}: leaves {', '.join(idle)} idle"
    return f"{slower}: more {loss.term.replace('_', ' ')} (+{loss.term_s / best.step_s:.1%} of the step)"


def _fullest(prediction: Prediction) -> Place | None:
    """The stage whose chips are fullest, if they are full."""
    problem, plan, most = prediction.scenario.problem, prediction.plan, (_FULL, None)
    for place, stage in plan.stages():
        part = memory_need(plan, place, problem).total / problem.topology.pool(stage.pool).memory_bytes
        most = max(most, (part, place), key=lambda found: found[0])  # type: ignore[assignment]
    return most[1]


def _signature(plan: Plan) -> tuple[object, ...]:
    """What a person would call the plan: its stages, but not how deep their warm-ups are."""
    return plan.schedule, *(
        (p.share, p.micro_batch, tuple((s.pool, s.tp, s.units, str(s.strategies())) for s in p.stages))
        for p in plan.pipelines
    )


def left_idle(
    problem: Problem, found: Sequence[Prediction], best_with: Callable[[str], float | None]
) -> tuple[Idle, ...]:
    """Of predictions from fast to slow: the chips that the first leaves idle; where that is a whole pool, by what the
    search knows of the plans with it."""
    return tuple(
        idle if idle.chips < idle.count else _left_out(idle, problem, found[0], best_with(idle.pool))
        for idle in idle_chips(found[0].plan, problem.topology, problem.legal_tp)
    )


def _left_out(idle: Idle, problem: Problem, best: Prediction, using: float | None) -> Idle:
    if using is not None:
        why = f"the best plan with it takes {using:.4g} s a step, this one {best.step_s:.4g} s"
        return replace(idle, why=why, remedy="take the pool out of the job, or give it a faster link")
    roomy = [replace(pool, memory_bytes=2**62) for pool in problem.topology.pools if pool.name == idle.pool]
    if LayoutSpace(replace(problem, topology=replace(problem.topology, pools=tuple(roomy)))).of((idle.pool,)):
        why = "no plan with it fits the memory of the chips"
        return replace(idle, why=why, remedy="use more chips there, chips with more memory, or a smaller micro_batch")
    why = "it has no division into stages with a legal tp, enough units and a micro-batch for each pipeline"
    return replace(idle, why=why, remedy=f"set pools.{idle.pool}.tp to auto, or raise train.global_batch")
