"""The lists that ranks obey: what a schedule computes, with the messages between stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from balancer.plan.plan import PipelinePlan, Ticks
from balancer.schedule.action import MESSAGES, Action, Actions, Kind, unknown
from balancer.schedule.registry import schedule
from balancer.schedule.schedule import Placed


def actions_of(pipeline: PipelinePlan, name: str) -> tuple[Actions, ...]:
    """The lowered lists, one per stage, of a completed pipeline plan. The executor and the simulator both call this."""
    return lowered(*schedule_of(pipeline, name))


def schedule_of(pipeline: PipelinePlan, name: str) -> tuple[str, tuple[int, ...], int, tuple[int, ...], Ticks | None]:
    """All that the lists of a completed pipeline plan are made of."""
    return name, pipeline.stage_of_chunk(), pipeline.micro_batches, pipeline.warmups(), pipeline.ticks


def forward_actions_of(pipeline: PipelinePlan) -> tuple[Actions, ...]:
    """The lowered lists, one per stage, of the forwards of one global batch."""
    placed = pipeline.stage_of_chunk()
    return lower(forward_only(placed, pipeline.micro_batches), placed)


def forward_only(placed: Placed, micro_batches: int) -> tuple[Actions, ...]:
    """Forwards alone, in the order of micro-batches and, for each of them, of chunks. Every action waits only for
    earlier ones of that order, so the lists run to their end even where a boundary has room for one message."""
    lists: list[list[Action]] = [[] for _ in range(max(placed) + 1)]
    for m in range(micro_batches):
        for chunk, stage in enumerate(placed):
            lists[stage].append(Action(Kind.F, chunk, m))
    return tuple(map(tuple, lists))


@lru_cache(maxsize=256)
def lowered(
    name: str, placed: tuple[int, ...], micro_batches: int, warmups: tuple[int, ...], ticks: Ticks | None
) -> tuple[Actions, ...]:
    """The same of what such a plan says of a pipeline."""
    return lower(schedule(name).actions(placed, micro_batches, warmups, ticks), placed)


def last_backwards(actions: Actions) -> dict[int, Action]:
    """By chunk: the backward after which its SYNC comes."""
    last = {action.chunk: action for action in actions if action.kind in (Kind.B, Kind.W)}
    return {action.chunk: last[action.chunk] for action in actions if action.kind is Kind.SYNC}


def backwards_apart(pipeline: PipelinePlan, name: str) -> tuple[bool, ...]:
    """By stage of a completed pipeline plan: whether its backwards are two actions."""
    return tuple(any(action.kind is Kind.W for action in actions) for actions in actions_of(pipeline, name))


def lower(compute: Sequence[Sequence[Action]], placed: Placed) -> tuple[Actions, ...]:
    """Add RECV right before a first use and SEND right after production, where neighbours are on different stages."""
    return tuple(tuple(a for action in actions for a in _with_messages(action, placed)) for actions in compute)


def _with_messages(action: Action, placed: Placed) -> list[Action]:
    kind, chunk, m, _ = action
    if kind in (Kind.W, Kind.SYNC, Kind.STEP):
        return [action]
    before, here, after = [None, *placed, None][chunk : chunk + 3]
    before_differs, after_differs = before not in (None, here), after not in (None, here)
    if kind is Kind.F:
        first = [Action(Kind.RECV, chunk, m, "activation")] if before_differs else []
        return [*first, action, *([Action(Kind.SEND, chunk, m, "activation")] if after_differs else [])]
    if kind in (Kind.B, Kind.I):
        first = [Action(Kind.RECV, chunk, m, "gradient")] if after_differs else []
        return [*first, action, *([Action(Kind.SEND, chunk, m, "gradient")] if before_differs else [])]
    raise unknown(action, [kind for kind in Kind if kind not in MESSAGES], "lowering")
