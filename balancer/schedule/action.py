"""Actions: what a stage does, one at a time. Two interpreters read lists of them: the simulator (time) and the pipeline
executor (tensors). How both must read a lowered list:

A stage executes it in order; SEND is asynchronous; RECV waits for the arrival; the last B or W of a chunk hands over
the gradients of each of its units as soon as it has made them, and by SYNC(chunk), which follows it, all of them are.
An I makes all gradients but those of products' weights, and keeps what these are made of for its W. Handing over is
asynchronous too, since pipelines with other cuts do it in another order. STEP waits for every gradient owned here,
updates, and sends parameters back.

An action's chunk is always one of its own stage: SEND activation of chunk c goes to chunk c + 1, RECV activation of c
comes from c - 1, SEND gradient of c goes to c - 1, RECV gradient of c comes from c + 1. A message's identity is
(boundary, purpose, micro-batch), where boundary b lies between chunks b and b + 1; each boundary and purpose is first
in, first out.

Whoever reads a list says which kinds it knows and refuses all others: an action that is passed over is a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Literal, NamedTuple, get_args

from balancer.errors import ScheduleError

Purpose = Literal["activation", "gradient"]
PURPOSES = get_args(Purpose)


class Kind(str, Enum):
    """F forward, B whole backward, I all of its gradients but those of products' weights, W these (B = I + W), SYNC
    gradients of a chunk, STEP the update, SEND and RECV a message across a boundary."""

    F = "F"
    B = "B"
    I = "I"  # noqa: E741  # the name that the zero-bubble literature uses
    W = "W"
    SYNC = "SYNC"
    STEP = "STEP"
    SEND = "SEND"
    RECV = "RECV"


class Action(NamedTuple):
    """`micro_batch` is -1 for SYNC and STEP, `chunk` is -1 for STEP, `purpose` is None except for SEND and RECV."""

    kind: Kind
    chunk: int
    micro_batch: int
    purpose: Purpose | None = None

    @property
    def boundary(self) -> int:
        """Of SEND and RECV: the chunk before the boundary that is crossed."""
        outward = (self.kind is Kind.SEND) == (self.purpose == "activation")
        return self.chunk if outward else self.chunk - 1

    @property
    def message(self) -> Message:
        """Of SEND and RECV."""
        return self.boundary, self.purpose, self.micro_batch

    def __str__(self) -> str:
        return f"{self.kind.value}{self.micro_batch}"


Actions = tuple[Action, ...]
Message = tuple[int, Purpose | None, int]
STEP = Action(Kind.STEP, -1, -1)
COMPUTING = (Kind.F, Kind.B, Kind.I, Kind.W)
MESSAGES = (Kind.SEND, Kind.RECV)
KINDS = (*COMPUTING, *MESSAGES, Kind.SYNC, Kind.STEP)
"""What is read by whoever reads all that there is today."""


def refuse_unknown(actions: Iterable[Action], known: Sequence[Kind], reader: str) -> None:
    """Raises ScheduleError for an action that `reader` does not know, or a message without a known purpose."""
    for action in actions:
        if action.kind not in known:
            raise unknown(action, known, reader)
        if action.kind in MESSAGES and action.purpose not in PURPOSES:
            rule = f"the purpose of a message is {' or '.join(PURPOSES)}"
            raise ScheduleError("schedule", str(action), rule, f"correct {action.purpose!r}")


def unknown(action: Action, known: Iterable[Kind], reader: str) -> ScheduleError:
    rule = f"{reader} knows {', '.join(kind.value for kind in known)} and no other action"
    return ScheduleError("schedule", str(action), rule, "choose a schedule that is made of these")
