"""Two plans of one job beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

from balancer.plan.equal import equal_pipelines
from balancer.plan.plan import PipelinePlan, Plan
from balancer.search.ledger import efficiency
from hetero.job.planning.plan_job import Planned


@dataclass(frozen=True)
class PlanDifference:
    """Of what the plans say: where, as in plan.json, and what each has there, None where it has nothing."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class PlanComparison:
    first: Planned
    second: Planned

    @property
    def faster(self) -> float:
        """By how much the second is, as a part of the first's step; less than 0 if it is slower."""
        return 1 - self.second.prediction.step_s / self.first.prediction.step_s

    def differences(self) -> list[PlanDifference]:
        """In what they ask of chips; what follows from that is left out."""
        return list(_differences(self.first.plan, self.second.plan))


def plan_facts(planned: Planned) -> dict[str, float]:
    """Seconds, bytes and fractions of a plan: the step and where it goes, the fullest chip of each pool, and what
    crosses between pools in a step."""
    prediction, found = planned.prediction, dict[str, float]()
    found |= {"step_s": prediction.step_s, "tokens_per_s": prediction.tokens_per_s}
    found |= efficiency(prediction)
    for (p, s), stage in planned.plan.stages():
        key = f"memory_bytes.{stage.pool}"
        found[key] = max(found.get(key, 0), planned.memory_bytes(p, s))
    return found | {f"bytes.{way}": float(sent) for way, sent in sorted(_crossing(planned).items())}


def _crossing(planned: Planned) -> Counter[str]:
    """Of activations and gradients."""
    asked, sent = planned.prediction.scenario.problem, Counter[str]()
    for pipeline in planned.plan.pipelines:
        for chunk, after in pairwise(pipeline.chunks()):
            here, there = pipeline.stages[chunk.stage].pool, pipeline.stages[after.stage].pool
            if here == there:
                continue
            units = asked.workload.at(asked.topology.crossing(here, there)).units
            link = asked.topology.link(here, there)
            each = units[chunk.units[1] - 1].boundary_bytes * pipeline.share
            sent[f"{here}>{there}"] += round(each * link.activation_ratio)
            sent[f"{there}>{here}"] += round(each * link.gradient_ratio)
    return sent


def _differences(first: Plan, second: Plan) -> Iterator[PlanDifference]:
    if first.schedule != second.schedule:
        yield PlanDifference("schedule", first.schedule, second.schedule)
    mine, theirs = (list(_kinds(plan)) for plan in (first, second))
    for number, (one, other) in enumerate(zip_longest(mine, theirs, fillvalue=None)):
        a, b = (_asked(kind) for kind in (one, other))
        for key in dict.fromkeys([*a, *b]):
            if a.get(key) != b.get(key):
                yield PlanDifference(f"pipelines[{number}].{key}", a.get(key), b.get(key))


def _kinds(plan: Plan) -> Iterator[tuple[int, PipelinePlan]]:
    """Equal pipelines once, with how many there are."""
    for numbers in equal_pipelines(plan):
        yield len(numbers), plan.pipelines[numbers[0]]


def _asked(kind: tuple[int, PipelinePlan] | None) -> dict[str, Any]:
    if kind is None:
        return {}
    count, pipeline = kind
    found: dict[str, Any] = {"replicas": count, "share": pipeline.share, "micro_batch": pipeline.micro_batch}
    for s, stage in enumerate(pipeline.stages):
        told = {"pool": stage.pool, "tp": stage.tp, "units": [list(units) for units in stage.units]}
        told |= {"warmup": stage.warmup} | stage.strategies()
        found |= {f"stages[{s}].{name}": value for name, value in told.items()}
    return found
