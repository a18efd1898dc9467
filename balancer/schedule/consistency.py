"""Lowered lists run without times: are they consistent?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from balancer.errors import ScheduleError
from balancer.schedule.action import COMPUTING, Action, Actions, Kind, Message, Purpose

_WHOLE = [Kind.F, Kind.B], [Kind.F, Kind.I, Kind.W]


def check(lowered: Sequence[Actions]) -> None:
    """Raises ScheduleError unless every forward has its backward, every SEND its RECV, both sides of each boundary
    agree on the order, and the lists run to their end whatever the times (waiting is by message alone, so one such run
    proves it for all times)."""
    for actions in lowered:
        check_backwards(actions)
    _check_messages(lowered)
    position, sent = [0] * len(lowered), set[Message]()
    moved = True
    while moved:
        moved = False
        for s, actions in enumerate(lowered):
            while position[s] < len(actions) and _can_run(actions[position[s]], sent):
                if actions[position[s]].kind is Kind.SEND:
                    sent.add(actions[position[s]].message)
                position[s] += 1
                moved = True
    for s, actions in enumerate(lowered):
        if position[s] < len(actions):
            rule = "every stage waits for another: a deadlock"
            raise ScheduleError(f"stages[{s}]", actions[position[s]], rule, "deepen the warm-up of the stages before")


def check_backwards(actions: Actions) -> None:
    """Raises ScheduleError unless a stage computes each micro-batch in each chunk once, and in order: F and B, or F, I
    and W; or F alone, in a list without backwards."""
    done: dict[tuple[int, int], list[Kind]] = defaultdict(list)
    for action in actions:
        if action.kind in COMPUTING:
            done[action.chunk, action.micro_batch].append(action.kind)
    forwards_alone = all(found == [Kind.F] for found in done.values())
    for (chunk, m), found in done.items():
        if not forwards_alone and found not in _WHOLE:
            shown = f"{' '.join(kind.value for kind in found)} of micro-batch {m} in chunk {chunk}"
            rule = "each forward has one backward after it, B, or I and then W"
            raise ScheduleError("schedule", shown, rule, "put in what is missing, and take out what is there twice")


def _can_run(action: Action, sent: set[Message]) -> bool:
    return action.kind is not Kind.RECV or action.message in sent


def _check_messages(lowered: Sequence[Actions]) -> None:
    order: dict[Kind, dict[tuple[int, Purpose | None], list[int]]] = {
        kind: defaultdict(list) for kind in (Kind.SEND, Kind.RECV)
    }
    for actions in lowered:
        for action in actions:
            if action.kind in order:
                order[action.kind][action.boundary, action.purpose].append(action.micro_batch)
    for flow in {**order[Kind.SEND], **order[Kind.RECV]}:
        sends, receives = order[Kind.SEND][flow], order[Kind.RECV][flow]
        if sends != receives:
            rule = f"sends {sends} and receives {receives} of a boundary come in the same order"
            raise ScheduleError("schedule", flow, rule, "lower the schedule with balancer.schedule.lowering")
