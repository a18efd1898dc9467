"""Plans count as many receives as a rank posts, whatever order its neighbours send in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.memory.messages import posted_bytes
from balancer.schedule.action import COMPUTING, Action, Actions, Kind
from balancer.schedule.lowering import lower
from balancer.schedule.registry import schedule
from hetero.engine.step.executor import _needed_next
from hetero.transfer.messages import Destination
from hetero.transfer.native_messages import NativeMessages
from hetero.transfer.waits import Waits

CPU = torch.device("cpu")


class Posting:
    """A communicator that counts the messages that were posted for."""

    device = CPU

    def __init__(self) -> None:
        self.posted = 0

    def receive(self, x: torch.Tensor, source: int) -> Any:
        self.posted += 1
        return SimpleNamespace(wait=lambda: None)


def counts(lists: tuple[Actions, ...], placed: list[int], stage: int) -> list[int]:
    """While each computation of a stage runs, by the engine's own lines."""
    chips, taken, found = Posting(), 0, []
    native = NativeMessages(chips, chips, stage, Waits(CpuBackend()))  # type: ignore[arg-type]
    receivers = {
        (a.purpose, a.boundary): native.receiver(_source(a, placed), (a.purpose, a.boundary), 1, torch.float32)
        for a in lists[stage]
        if a.kind is Kind.RECV
    }
    others = [
        (s, [a for a in one if a.kind is Kind.SEND and _target(a, placed) == stage]) for s, one in enumerate(lists)
    ]
    native.begin({s: [(a.purpose, a.boundary) for a in sent] for s, sent in others})
    for action, ahead in zip(lists[stage], _needed_next(lists[stage]), strict=True):
        for key in ahead:
            receivers[key].expect()
        if action.kind is Kind.RECV:
            receivers[action.purpose, action.boundary].receive_pieces([Destination((1,))])
            taken += 1
        elif action.kind in COMPUTING:
            found.append(chips.posted - taken)
    return found


def _source(received: Action, placed: list[int]) -> int:
    return placed[received.boundary + (received.purpose == "gradient")]


def _target(sent: Action, placed: list[int]) -> int:
    return placed[sent.boundary + (sent.purpose == "activation")]


@pytest.mark.parametrize("name", ["1f1b", "gpipe", "zero-bubble"])
@pytest.mark.parametrize(
    ("placed", "warmup"),
    [([0, 1], [4, 2]), ([0, 1, 2], [3, 2, 1]), ([0, 1, 0, 1], [3, 2]), ([0, 1, 2, 1, 0], [4, 3, 2])],
    ids=["two stages", "three", "two chunks each", "there and back"],
)
def test_plans_count_the_receives_that_a_rank_posts(placed: list[int], warmup: list[int], name: str) -> None:
    lists, sizes = lower(schedule(name).actions(placed, 6, warmup), placed), dict.fromkeys(range(len(placed)), 1.0)
    for stage in range(max(placed) + 1):
        assert list(posted_bytes(lists, stage, placed, sizes)) == counts(lists, placed, stage)
