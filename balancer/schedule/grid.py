"""Lowered lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.errors import ScheduleError
from balancer.schedule.action import Action, Actions, Kind, Message, unknown

_TICKS = {Kind.F: 1, Kind.B: 2, Kind.I: 1, Kind.W: 1}
_NO_TIME = (Kind.SEND, Kind.RECV, Kind.SYNC, Kind.STEP)


def format_grid(lowered: Sequence[Actions], max_columns: int = 32, max_rows: int = 16) -> str:
    """One row per stage, one column per tick (a forward takes 1, a backward 2, messages none): "F3" is the forward of
    micro-batch 3, "F3.1" that of the stage's chunk 1 where there are several chunks."""
    rows = _columns(lowered)
    width = max((len(cell) for row in rows for cell in row), default=1) + 1
    lines = []
    for s, row in enumerate(rows[:max_rows]):
        shown = "".join(cell.ljust(width) for cell in row[:max_columns])
        lines.append(f"stage {s}  {shown}{'...' if len(row) > max_columns else ''}".rstrip())
    if len(rows) > max_rows:
        lines.append(f"and {len(rows) - max_rows} more stages")
    return "\n".join(lines)


def _columns(lowered: Sequence[Actions]) -> list[list[str]]:
    """By stage, what is in each of its columns."""
    rows: list[list[str]] = [[] for _ in lowered]
    position, sent = [0] * len(lowered), dict[Message, int]()
    several = [len({a.chunk for a in actions if a.kind is Kind.F}) > 1 for actions in lowered]
    while any(position[s] < len(actions) for s, actions in enumerate(lowered)):
        before = list(position)
        for s, actions in enumerate(lowered):
            while position[s] < len(actions) and _is_there(actions[position[s]], sent):
                _lay(actions[position[s]], rows[s], sent, several[s])
                position[s] += 1
        if position == before:
            raise ScheduleError("schedule", position, "every stage waits for another: a deadlock", "check the schedule")
    return rows


def _is_there(action: Action, sent: dict[Message, int]) -> bool:
    return action.kind is not Kind.RECV or action.message in sent


def _lay(action: Action, row: list[str], sent: dict[Message, int], several: bool) -> None:
    """At the end of a stage's row, behind what it waits for."""
    if action.kind is Kind.RECV:
        row += ["."] * (sent[action.message] - len(row))
    elif action.kind is Kind.SEND:
        sent[action.message] = len(row)
    elif action.kind in _TICKS:
        name = f"{action.kind.value}{action.micro_batch}" + (f".{action.chunk}" if several else "")
        row += [name] + ["-"] * (_TICKS[action.kind] - 1)
    elif action.kind not in _NO_TIME:
        raise unknown(action, [*_TICKS, *_NO_TIME], "the grid")
