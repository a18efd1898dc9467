"""What a stage may do to be faster or to need less memory: the choices that its plan has fields for."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple

from balancer.plan.plan import StagePlan
from balancer.plan.recompute import Recompute, RecomputedUnits
from balancer.problem import Problem

_SLICES = 1, 2, 4


class Strategy(NamedTuple):
    """Of a stage, but for which of its units are recomputed."""

    optimizer: Literal["chip", "host"] = "chip"
    sequence_parallel: bool = False
    tp_slices: int = 1
    experts: Literal["split", "spread"] = "split"

    @staticmethod
    def of(stage: StagePlan) -> Strategy:
        return Strategy(stage.optimizer, stage.sequence_parallel, stage.tp_slices, stage.experts)

    @lru_cache(maxsize=4096)  # noqa: B019  a strategy is a few words
    def stage(
        self, pool: str, tp: int, units: tuple[int, int], recompute: Recompute | RecomputedUnits = "none"
    ) -> StagePlan:
        return StagePlan(pool=pool, tp=tp, units=(units,), recompute=recompute, **self._asdict())


def strategies(problem: Problem, tp: int) -> list[Strategy]:
    """Those that the problem leaves open and a group of `tp` chips can do, the plain one first."""
    work = problem.workload
    chosen = set(problem.options.choose) - work.refused.keys()
    hosts: tuple[Literal["chip", "host"], ...] = ("chip", "host") if "optimizer" in chosen else ("chip",)
    rows = "sequence_parallel" in chosen and tp > 1 and work.seq_len % tp == 0
    slices = [n for n in _SLICES if n <= work.seq_len // tp] if "tp_slices" in chosen and tp > 1 else [1]
    spread = "experts" in chosen and 1 < tp <= work.experts
    experts: tuple[Literal["split", "spread"], ...] = ("split", "spread") if spread else ("split",)
    return [Strategy(*each) for each in product(hosts, (False, True) if rows else (False,), slices, experts)]


def recompute_words(problem: Problem) -> tuple[Recompute, ...]:
    """Those that units may be recomputed by."""
    if "recompute" not in problem.options.choose or not any(unit.recomputed for unit in problem.workload.units):
        return ("none",)
    return "none", "selective", "full"


def recomputed(full: int, selective: int, units: int) -> Recompute | RecomputedUnits:
    """So many of a stage's units in full and the next so many selectively: one word where that says it."""
    if not full and not selective:
        return "none"
    if full == units:
        return "full"
    return "selective" if selective == units else RecomputedUnits(full=full, selective=selective)
