"""Actions: what a stage does, one at a time. Two interpreters read lists of them: the simulator (time) and the pipeline
executor (tensors). How both must read a lowered list:

A stage executes it in order; SEND is asynchronous; RECV waits for the arrival; the last backward of a chunk hands over
the gradients of each of its units as soon as it has made them, and by SYNC(chunk), which follows it, all of them are.
Handing over is asynchronous too, since pipelines with other cuts do it in another order. STEP waits for every gradient
owned here, updates, and sends parameters back.

An action's chunk is always one of its own stage: SEND activation of chunk c goes to chunk c + 1, RECV activation of c
comes from c - 1, SEND gradient of c goes to c - 1, RECV gradient of c comes from c + 1. A message's identity is
(boundary, purpose, micro-batch), where boundary b lies between chunks b and b + 1; each boundary and purpose is first
in, first out.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple

Purpose = Literal["activation", "gradient"]


class Kind(str, Enum):
    """F forward, B whole backward, I input gradient, W weight gradient (B = I + W), SYNC gradients of a chunk."""

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

    def __str__(self) -> str:
        return f"{self.kind.value}{self.micro_batch}"


Actions = tuple[Action, ...]
STEP = Action(Kind.STEP, -1, -1)
