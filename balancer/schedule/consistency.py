"""Lowered lists run without times: are they consistent?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from balancer.errors import ScheduleError
from balancer.schedule.action import Action, Actions, Kind, Message, Purpose


def check(lowered: Sequence[Actions]) -> None:
    """Raises ScheduleError unless every SEND has its RECV, both sides of each boundary agree on the order, and the
    lists run to their end whatever the times (waiting is by message alone, so one such run proves it for all times)."""
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
