"""Why a plan was chosen, and what each pool adds to it, in words and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from balancer.search.ledger import ledger

if TYPE_CHECKING:
    from balancer.search.certificate import Certificate
    from balancer.search.reasons import Loss
    from balancer.search.search import SearchResult
    from hetero.job.planning.plan_job import Planned
    from hetero.job.planning.worth import PoolWorth

NEXT = 3
_TERMS = {
    "rounding": "whole units and whole micro-batches",
    "imbalance": "the busiest stage, beyond the best cut",
    "bubble": "filling and emptying pipelines",
    "exposed_link": "links that computation does not hide",
    "recompute": "what backwards make again",
    "update": "the optimizer's update",
    "tp": "a tp that is not the pool's fastest",
    "idle": "chips without work",
    "other": "what nothing explains",
}
_BINDS = {
    "memory": "the memory of its chips",
    "rounding": "whole units and whole micro-batches",
    "imbalance": "its busiest stage",
    "bubble": "filling and emptying its pipelines",
    "link": "its links",
    "recompute": "what its backwards make again",
    "idle": "chips without work",
    "other": "nothing that has a name",
}


def explanation(planned: Planned) -> dict[str, Any]:
    """As data: where the step goes, by how much each of the next plans is slower and what binds it, and how good the
    choice is known to be. Empty for a plan by hand."""
    found = planned.found
    if found is None:
        return {}
    return {
        "seconds": {term: part * planned.prediction.step_s for term, part in ledger(planned.prediction).items()},
        "losses": [asdict(loss) for loss in found.losses],
        "sizes": asdict(found.sizes),
        "certificate": {
            "bound_s": found.certificate.bound_s,
            "gap": found.certificate.gap,
            "proven": found.certificate.proven,
            "left": sorted(unseen.value for unseen in found.certificate.left),
            "interrupted": found.certificate.interrupted,
        },
    }


def print_explanation(planned: Planned, console: Console) -> None:
    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    if planned.found is None:
        say("\nwhy: the plan was given; without balance.pipelines the balancer chooses")
        return
    say("\nwhy this plan: of a step of all chips at full speed, what it loses")
    step_s = planned.prediction.step_s
    for term, part in sorted(ledger(planned.prediction).items(), key=lambda each: -each[1]):
        if round(part, 4):
            say(f"  {part * step_s:9.4g} s  {part:6.1%}  {_TERMS[term]}")
    own, *others = planned.found.losses
    say(f"what binds it: {_bound(own)}")
    for (_, _, why), loss in list(zip(planned.runners_up, others, strict=False))[:NEXT]:
        say(f"  next: +{loss.seconds:.4g} s, {why}; bound by {_bound(loss)}")
    for line in _searched(planned.found):
        say(line)


def _bound(loss: Loss) -> str:
    where = "" if loss.stage is None else f", of stage {loss.stage[1]} in pipeline {loss.stage[0]}"
    return _BINDS[loss.binds] + where


def _searched(found: SearchResult) -> list[str]:
    sizes = found.sizes
    said = (
        f"searched: {sizes.ways:,} ways to form pipelines of {sizes.layouts:,} layouts ({sizes.pruned:,} fit nowhere); "
        f"{sizes.priced:,} cut, {sizes.simulated:,} simulated"
    )
    return [said, _known(found.certificate)]


def _known(certificate: Certificate) -> str:
    if certificate.proven:
        return "no plan of this space is faster"
    left = ", ".join(sorted(unseen.value for unseen in certificate.left))
    broken = "; broken off" if certificate.interrupted else ""
    bound = f"no plan takes less than {certificate.bound_s:.4g} s, {certificate.gap:.1%} below this one"
    return f"{bound}; not looked through: all {left}{broken}"


def worth_as_data(found: Sequence[PoolWorth]) -> list[dict[str, Any]]:
    return [asdict(one) | {"worth_it": one.is_worth_it} for one in found]


def print_worth(found: Sequence[PoolWorth], console: Console) -> None:
    if found:
        console.print("\nwhat each pool adds:", highlight=False)
    for one in found:
        console.print(f"  {one.pool}: {_worth(one)}", soft_wrap=True, markup=False, highlight=False)


def _worth(one: PoolWorth) -> str:
    if one.adds is None:
        return "no plan fits without it"
    said = f"{one.adds:+.1%}; without it a step takes {one.without_s:.4g} s"
    if one.is_worth_it:
        return said
    return f"{said}: no more than chance ({one.least:.1%}), leave it out (--set pools.{one.pool}=null)"
