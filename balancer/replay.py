"""Lowered lists replayed without times: are they consistent, and what do they look like?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from balancer.action import Action, Actions, Kind, Purpose
from balancer.errors import ScheduleError

_Message = tuple[int, Purpose | None, int]
_TICKS = {Kind.F: 1, Kind.B: 2, Kind.I: 1, Kind.W: 1}


def check(lowered: Sequence[Actions]) -> None:
    """Raises ScheduleError unless every SEND has its RECV, both sides of each boundary agree on the order, and the
    lists run to their end whatever the times (waiting is by message alone, so one replay proves it for all times)."""
    _check_messages(lowered)
    position, sent = [0] * len(lowered), set[_Message]()
    moved = True
    while moved:
        moved = False
        for s, actions in enumerate(lowered):
            while position[s] < len(actions) and _can_run(actions[position[s]], sent):
                if actions[position[s]].kind is Kind.SEND:
                    sent.add(_message(actions[position[s]]))
                position[s] += 1
                moved = True
    for s, actions in enumerate(lowered):
        if position[s] < len(actions):
            rule = "every stage waits for another: a deadlock"
            raise ScheduleError(f"stages[{s}]", actions[position[s]], rule, "deepen the warm-up of the stages before")


def _message(action: Action) -> _Message:
    return action.boundary, action.purpose, action.micro_batch


def _can_run(action: Action, sent: set[_Message]) -> bool:
    return action.kind is not Kind.RECV or _message(action) in sent


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
            raise ScheduleError("schedule", flow, rule, "lower the schedule with balancer.schedule.lower")


def format_grid(lowered: Sequence[Actions], max_columns: int = 32, max_rows: int = 16) -> str:
    """One row per stage, one column per tick (a forward takes 1, a backward 2, messages none): "F3" is the forward of
    micro-batch 3, "F3.1" that of the stage's chunk 1 where there are several chunks."""
    rows = _ticks(lowered)
    width = max((len(cell) for row in rows for cell in row), default=1) + 1
    lines = []
    for s, row in enumerate(rows[:max_rows]):
        shown = "".join(cell.ljust(width) for cell in row[:max_columns])
        lines.append(f"stage {s}  {shown}{'...' if len(row) > max_columns else ''}".rstrip())
    if len(rows) > max_rows:
        lines.append(f"and {len(rows) - max_rows} more stages")
    return "\n".join(lines)


def _ticks(lowered: Sequence[Actions]) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in lowered]
    position, arrived = [0] * len(lowered), dict[_Message, int]()
    several = [len({a.chunk for a in actions if a.kind is Kind.F}) > 1 for actions in lowered]
    while any(position[s] < len(actions) for s, actions in enumerate(lowered)):
        before = list(position)
        for s, actions in enumerate(lowered):
            while position[s] < len(actions):
                action = actions[position[s]]
                if action.kind is Kind.RECV:
                    if _message(action) not in arrived:
                        break
                    rows[s] += ["."] * (arrived[_message(action)] - len(rows[s]))
                elif action.kind is Kind.SEND:
                    arrived[_message(action)] = len(rows[s])
                elif action.kind in _TICKS:
                    name = f"{action.kind.value}{action.micro_batch}" + (f".{action.chunk}" if several[s] else "")
                    rows[s] += [name] + ["-"] * (_TICKS[action.kind] - 1)
                position[s] += 1
        if position == before:
            raise ScheduleError("schedule", position, "every stage waits for another: a deadlock", "check the schedule")
    return rows
