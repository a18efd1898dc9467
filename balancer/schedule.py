"""Schedules as data: what each stage does, in order.

A schedule is a function (stage of each chunk, micro-batches, warm-up of each stage) -> one action list per stage. It
decides computation alone; `lower` adds SEND and RECV.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from balancer.action import STEP, Action, Actions, Kind
from balancer.errors import ScheduleError, did_you_mean
from balancer.list_schedule import list_schedule
from balancer.plan import PipelinePlan

Schedule = Callable[[Sequence[int], int, Sequence[int]], tuple[Actions, ...]]


def gpipe(stage_of_chunk: Sequence[int], micro_batches: int, warmup: Sequence[int]) -> tuple[Actions, ...]:
    """All forwards, then all backwards. Every micro-batch is in flight; `warmup` is not read."""
    last = len(stage_of_chunk) - 1
    lists: list[list[Action]] = [[] for _ in range(max(stage_of_chunk) + 1)]
    for chunk in range(last + 1):
        lists[stage_of_chunk[chunk]] += [Action(Kind.F, chunk, m) for m in range(micro_batches)]
    for chunk in range(last, -1, -1):
        lists[stage_of_chunk[chunk]] += [Action(Kind.B, chunk, m) for m in range(micro_batches)]
    return _with_sync_and_step(lists)


def one_f_one_b(stage_of_chunk: Sequence[int], micro_batches: int, warmup: Sequence[int]) -> tuple[Actions, ...]:
    """One forward, one backward, after a warm-up of each stage's own depth.

    With one chunk per stage, stage s runs exactly warmup[s] forwards (or all) before its first backward; the depth must
    not grow along the pipeline, or a stage would wait for forwards that the one before holds back. With several chunks
    on a stage it is a bound on the micro-batches between the stage's first forward and its last backward.
    """
    if len(set(stage_of_chunk)) < len(stage_of_chunk):  # some stage has several chunks
        return _with_sync_and_step(list_schedule(stage_of_chunk, micro_batches, warmup))
    lists: list[list[Action]] = [[] for _ in stage_of_chunk]
    previous = micro_batches
    for chunk, stage in enumerate(stage_of_chunk):
        depth = min(warmup[stage], micro_batches)
        if depth > previous or depth < 1:
            rule = f"a warm-up is at least 1 and at most that of the stage before ({previous})"
            raise ScheduleError(f"stages[{stage}].warmup", warmup[stage], rule, f"use {min(previous, max(depth, 1))}")
        previous = depth
        lists[stage] = [Action(Kind.F, chunk, m) for m in range(depth)]
        for m in range(micro_batches):
            lists[stage].append(Action(Kind.B, chunk, m))
            if m + depth < micro_batches:
                lists[stage].append(Action(Kind.F, chunk, m + depth))
    return _with_sync_and_step(lists)


def forward_only(stage_of_chunk: Sequence[int], micro_batches: int) -> tuple[Actions, ...]:
    """Forwards alone, in the order of micro-batches and, for each of them, of chunks. Every action waits only for
    earlier ones of that order, so the lists run to their end even where a boundary has room for one message."""
    lists: list[list[Action]] = [[] for _ in range(max(stage_of_chunk) + 1)]
    for m in range(micro_batches):
        for chunk, stage in enumerate(stage_of_chunk):
            lists[stage].append(Action(Kind.F, chunk, m))
    return tuple(map(tuple, lists))


SCHEDULES: dict[str, Schedule] = {"1f1b": one_f_one_b, "gpipe": gpipe}


def schedules(name: str) -> Schedule:
    """The schedule of that name. Raises ScheduleError for an unknown one."""
    if name not in SCHEDULES:
        raise ScheduleError("schedule", name, "no such schedule", did_you_mean(name, SCHEDULES))
    return SCHEDULES[name]


def actions_of(pipeline: PipelinePlan, schedule: str) -> tuple[Actions, ...]:
    """The lowered lists, one per stage, of a completed pipeline plan. The executor and the simulator both call this."""
    return _lowered(schedule, pipeline.stage_of_chunk(), pipeline.micro_batches, pipeline.warmups())


def forward_actions_of(pipeline: PipelinePlan) -> tuple[Actions, ...]:
    """The lowered lists, one per stage, of the forwards of one global batch."""
    placed = pipeline.stage_of_chunk()
    return lower(forward_only(placed, pipeline.micro_batches), placed)


@lru_cache(maxsize=256)
def _lowered(name: str, placed: tuple[int, ...], micro_batches: int, warmups: tuple[int, ...]) -> tuple[Actions, ...]:
    return lower(schedules(name)(placed, micro_batches, warmups), placed)


def last_backwards(actions: Actions) -> dict[int, Action]:
    """By chunk: the backward after which its SYNC comes."""
    last = {action.chunk: action for action in actions if action.kind in (Kind.B, Kind.W)}
    return {action.chunk: last[action.chunk] for action in actions if action.kind is Kind.SYNC}


def lower(compute: Sequence[Sequence[Action]], stage_of_chunk: Sequence[int]) -> tuple[Actions, ...]:
    """Add RECV right before a first use and SEND right after production, where neighbours are on different stages."""
    return tuple(tuple(a for action in actions for a in _with_messages(action, stage_of_chunk)) for actions in compute)


def _with_messages(action: Action, stage_of_chunk: Sequence[int]) -> list[Action]:
    kind, chunk, m, _ = action
    stages = [None, *stage_of_chunk, None]
    before, here, after = stages[chunk : chunk + 3] if chunk >= 0 else (None, None, None)
    before_differs, after_differs = before not in (None, here), after not in (None, here)
    if kind is Kind.F:
        first = [Action(Kind.RECV, chunk, m, "activation")] if before_differs else []
        return [*first, action, *([Action(Kind.SEND, chunk, m, "activation")] if after_differs else [])]
    if kind in (Kind.B, Kind.I):
        first = [Action(Kind.RECV, chunk, m, "gradient")] if after_differs else []
        return [*first, action, *([Action(Kind.SEND, chunk, m, "gradient")] if before_differs else [])]
    return [action]


def _with_sync_and_step(lists: list[list[Action]]) -> tuple[Actions, ...]:
    """SYNC of each chunk follows its last backward; STEP ends the list."""
    done = []
    for actions in lists:
        last = {action.chunk: i for i, action in enumerate(actions) if action.kind in (Kind.B, Kind.W)}
        with_sync: list[Action] = []
        for i, action in enumerate(actions):
            with_sync.append(action)
            if last.get(action.chunk) == i:
                with_sync.append(Action(Kind.SYNC, action.chunk, -1))
        done.append((*with_sync, STEP))
    return tuple(done)
