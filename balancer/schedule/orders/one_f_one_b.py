"""1F1B: one forward, one backward, after a warm-up of each stage's own depth."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from balancer.errors import ScheduleError
from balancer.plan.plan import Ticks
from balancer.schedule.action import Action, Kind
from balancer.schedule.clock import Policy, decide, even_ticks
from balancer.schedule.schedule import MicroBatchTimes, Placed, Schedule

_SLOW = 0.02
"""A hop is worth hiding from this part of the slowest stage on."""


class OneFOneB(Schedule):
    """With one chunk per stage, stage s runs exactly warmup[s] forwards (or all) before its first backward; the depth
    must not grow along the pipeline, or a stage would wait for forwards that the one before holds back. With several
    chunks on a stage it is a bound on the micro-batches between the stage's first forward and its last backward."""

    name = "1f1b"

    def compute(
        self, placed: Placed, micro_batches: int, warmup: Sequence[int], ticks: Ticks | None = None
    ) -> list[list[Action]]:
        if _several(placed):
            return decide(placed, micro_batches, warmup, even_ticks(placed), Policy(split=False, alternate=False))
        self.check_warmups(placed, micro_batches, warmup)
        lists: list[list[Action]] = [[] for _ in placed]
        for chunk, stage in enumerate(placed):
            depth = min(warmup[stage], micro_batches)
            lists[stage] = [Action(Kind.F, chunk, m) for m in range(depth)]
            for m in range(micro_batches):
                lists[stage].append(Action(Kind.B, chunk, m))
                if m + depth < micro_batches:
                    lists[stage].append(Action(Kind.F, chunk, m + depth))
        return lists

    def check_warmups(self, placed: Placed, micro_batches: int, warmup: Sequence[int]) -> None:
        previous = micro_batches
        for stage in () if _several(placed) else placed:
            depth = min(warmup[stage], micro_batches)
            if depth > previous or depth < 1:
                rule = f"a warm-up is at least 1 and at most that of the stage before ({previous})"
                remedy = f"use {min(previous, max(depth, 1))}"
                raise ScheduleError(f"stages[{stage}].warmup", warmup[stage], rule, remedy)
            previous = depth

    def in_flight(self, micro_batches: int, warmup: int) -> int:
        return min(warmup, micro_batches)

    def period_s(self, times: MicroBatchTimes, warmup: Sequence[int]) -> float:
        """Between two stages a micro-batch goes there and back while the first one runs ahead of the other, by the
        difference of their warm-ups and one more; so do as many others."""
        longest = max(*times.work_s, *times.link_s)
        for last in range(len(warmup)):
            trip_s = 0.0
            for first in range(last, -1, -1):
                trip_s += times.work_s[first] + (2 * times.hop_s[first] if first < last else 0.0)
                longest = max(longest, trip_s / (warmup[first] - warmup[last] + 1))
        return longest

    def expected_period_s(self, times: MicroBatchTimes, micro_batches: int) -> float:
        """At the usual depths, but for waits between two stages before the end, which slightly deeper ones hide."""
        longest, trip_s = max(*times.work_s, *times.link_s), 0.0
        from_the_end = zip(reversed(times.work_s), (0.0, *reversed(times.hop_s)), strict=True)
        for behind, (work, hop) in enumerate(from_the_end, 1):
            trip_s += work + 2 * hop
            longest = max(longest, trip_s / behind)
        return longest

    def hiding_warmups(self, placed: Placed, times: MicroBatchTimes, usual: Sequence[int]) -> tuple[int, ...]:
        """Round trip over slowest stage, and one more before a slow hop, since F and B alternate: enough by formula."""
        work, hops = times.work_s, times.hop_s
        slowest_s = max(sum(each for each, s in zip(work, placed, strict=True) if s == stage) for stage in placed)
        depths = []
        for s, least in enumerate(usual):
            first = placed.index(s)
            trip_s = sum(work[first:]) + 2 * sum(hops[first:])
            slow = any(hop > _SLOW * slowest_s for hop in hops[first:])
            depths.append(max(least, ceil(trip_s / slowest_s) + 1) if slow else least)
        return tuple(depths)


def _several(placed: Placed) -> bool:
    """Whether some stage has several chunks."""
    return len(set(placed)) < len(placed)
