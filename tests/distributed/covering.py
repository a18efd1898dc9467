"""Plans in which every strategy meets every other, two at a time: a covering set of pairs, found greedily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random
from typing import Any

from balancer.plan.plan import PipelinePlan, StagePlan
from tests.distributed.cases import SOME, Case, a1, a2, a4, case_of, k1, k2, n1, n2, n4, pipeline

Row = Mapping[str, Any]

AXES: dict[str, Sequence[Any]] = {
    "schedule": ("1f1b", "gpipe", "zero-bubble", "interleaved", "v"),
    "recompute": ("none", "selective", "full", SOME),
    "precision": ("float32", "bfloat16", "float16"),
    "layout": ("tp shrinks", "tp grows", "copies"),
    "sequence_parallel": (False, True),
    "tp_slices": (1, 3),
    "optimizer": ("chip", "host"),
    "tie_embeddings": (False, True),
}
_TRIES = 60
"""Rows that are drawn for each that is taken: the one with most pairs that no other has."""


def rows() -> list[Row]:
    """As few as the greedy finds, with each pair of values of each two axes in one of them at least."""
    random, found = Random(0), list[Row]()
    left = {pair for a, b in combinations(AXES, 2) for pair in _pairs({a: AXES[a], b: AXES[b]})}
    while left:
        drawn = [{axis: random.choice(values) for axis, values in AXES.items()} for _ in range(_TRIES)]
        best = max(drawn, key=lambda row: len(_met(row) & left))
        left -= _met(best)
        found.append(best)
    return found


def covering() -> list[Case]:
    """A case for each row; uneven cuts, and shares by number of pipelines."""
    return [_row_case(row) for row in rows()]


def _pairs(axes: Mapping[str, Sequence[Any]]) -> set[tuple[str, str, str, str]]:
    (a, here), (b, there) = axes.items()
    return {(a, str(one), b, str(other)) for one in here for other in there}


def _met(row: Row) -> set[tuple[str, str, str, str]]:
    return {(a, str(row[a]), b, str(row[b])) for a, b in combinations(AXES, 2)}


def _row_case(row: Row) -> Case:
    name = ", ".join(str(value) for value in row.values())
    chosen = {axis: row[axis] for axis in ("schedule", "precision", "tie_embeddings")}
    return case_of(name, *_pipelines(row), layers=5, **chosen)


def _pipelines(row: Row) -> tuple[PipelinePlan, ...]:
    if row["layout"] == "tp shrinks":
        stages = n4(0, 5), a2(5, 9), k1(9, 12)
    elif row["layout"] == "tp grows":
        stages = k1(0, 3), n2(3, 8), a4(8, 12)
    else:
        return (
            pipeline(4, *(_asked(row, stage) for stage in (n2(0, 7), a2(7, 12)))),
            pipeline(2, *(_asked(row, stage) for stage in (a1(0, 4), n1(4, 12)))),
            pipeline(2, _asked(row, k2(0, 6)), _asked(row, n1(6, 12))),
        )
    return (pipeline(6, *(_asked(row, stage) for stage in stages)),)


def _asked(row: Row, stage: StagePlan) -> StagePlan:
    """The strategies of a row, as far as they are for a group of one."""
    fields = {"recompute": row["recompute"], "optimizer": row["optimizer"]}
    if stage.tp > 1:
        fields |= {axis: row[axis] for axis in ("sequence_parallel", "tp_slices")}
    return stage.model_copy(update=fields)
