"""Groupings that differ from another in one thing: what guesses pass over is often one step from what they find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from balancer.problem import Problem
from balancer.search.grouping import Group, Grouping, Segment


def neighbours(problem: Problem, grouping: Grouping) -> Iterator[Grouping]:
    """With another schedule, or one group with another tp, number of stages, order or choice of its pools, another size
    of micro-batch, or more or fewer pipelines."""
    for name in problem.schedules:
        if name != grouping.schedule and any(len(group.stages) > 1 for group in grouping.groups):
            yield replace(grouping, schedule=name)
    groups = grouping.groups
    for i, group in enumerate(groups):
        for changed in _changed(problem, group):
            found = replace(grouping, groups=(*groups[:i], changed, *groups[i + 1 :]))
            sequences = sum(one.pipelines * one.micro_batch for one in found.groups)
            if sequences <= problem.workload.global_batch:
                yield found


def _changed(problem: Problem, group: Group) -> Iterator[Group]:
    most = len(problem.workload.cuts) - 1
    fewer = (segments for segments in _segments(problem, group) if sum(one.stages for one in segments) <= most)
    yield from (replace(group, segments=segments) for segments in fewer)
    sizes = problem.micro_batch_sizes
    at = sizes.index(group.micro_batch)
    yield from (replace(group, micro_batch=size) for size in (*sizes[max(0, at - 1) : at], *sizes[at + 1 : at + 2]))
    n = group.pipelines
    for pipelines in sorted({n // 2, n - 1, n + 1, 2 * n} - {0, n}):
        fuller = [_full(problem, one.pool, one.tp, pipelines) for one in group.segments]
        if all(one.stages for one in fuller) and sum(one.stages for one in fuller) <= most:
            yield replace(group, segments=tuple(fuller), pipelines=pipelines)


def _segments(problem: Problem, group: Group) -> Iterator[tuple[Segment, ...]]:
    segments, n = group.segments, group.pipelines
    for i, one in enumerate(segments):
        full = [_full(problem, one.pool, tp, n) for tp in _tps(problem, one)]
        room = _full(problem, one.pool, one.tp, n).stages
        some = [replace(one, stages=stages) for stages in (one.stages - 1, one.stages + 1) if stages <= room]
        yield from ((*segments[:i], changed, *segments[i + 1 :]) for changed in (*full, *some) if changed.stages)
        if len(segments) > 1:
            yield (*segments[:i], *segments[i + 1 :])
        for j in range(i):
            swapped = list(segments)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            yield tuple(swapped)


def _full(problem: Problem, pool: str, tp: int, pipelines: int) -> Segment:
    """With as many stages as the pool has room for."""
    return Segment(pool, tp, problem.topology.pool(pool).tp_groups(tp) // pipelines)


def _tps(problem: Problem, segment: Segment) -> Sequence[int]:
    sizes = problem.topology.pool(segment.pool).tp_sizes()
    legal = [tp for tp in sizes if not problem.legal_tp(tp) and problem.knows(segment.pool, tp)]
    return [tp for tp in legal if tp != segment.tp]
