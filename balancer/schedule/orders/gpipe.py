"""GPipe: all forwards, then all backwards."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.plan.plan import Ticks
from balancer.schedule.action import Action, Kind
from balancer.schedule.schedule import MicroBatchTimes, Placed, Schedule


class GPipe(Schedule):
    """Every micro-batch is in flight; warm-ups are not read, so none hides more than another."""

    name = "gpipe"
    searched = False

    def compute(
        self, placed: Placed, micro_batches: int, warmup: Sequence[int], ticks: Ticks | None = None
    ) -> list[list[Action]]:
        last = len(placed) - 1
        lists: list[list[Action]] = [[] for _ in range(max(placed) + 1)]
        for chunk in range(last + 1):
            lists[placed[chunk]] += [Action(Kind.F, chunk, m) for m in range(micro_batches)]
        for chunk in range(last, -1, -1):
            lists[placed[chunk]] += [Action(Kind.B, chunk, m) for m in range(micro_batches)]
        return lists

    def in_flight(self, micro_batches: int, warmup: int) -> int:
        return micro_batches

    def period_s(self, times: MicroBatchTimes, warmup: Sequence[int]) -> float:
        """Forwards go as fast as the slowest of them, and so do backwards."""
        activations, gradients = times.link_s
        return max(*times.forward_s, activations) + max(*times.backward_s, gradients)
