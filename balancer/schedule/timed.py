"""Schedules that are made on a clock: for these chunks, with these times."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import ceil, inf
from typing import ClassVar

from balancer.plan.plan import Ticks
from balancer.schedule.action import Action
from balancer.schedule.clock import Lists, Policy, decide, even_ticks, replay
from balancer.schedule.orders.one_f_one_b import OneFOneB
from balancer.schedule.schedule import MicroBatchTimes, Placed, Schedule

_PRECISION = 100_000
"""Ticks of the slowest chunk of a micro-batch."""
_REHEARSED = 48
"""Micro-batches that policies are compared over; and one for each chunk on the way there and back."""
_MOST = 12
"""Micro-batches that are worth keeping for a way as long as a stage's work on one."""


class TimedSchedule(Schedule):
    """A stage does what it can as soon as it can, by the policy that is fastest for these times. Its warm-up is a bound
    on the micro-batches between its first forward and its last backward, weight gradients included. Never slower than
    1F1B with the same bounds: where that is as fast, these are its lists."""

    timed: ClassVar[bool] = True

    @property
    @abstractmethod
    def policies(self) -> Sequence[Policy]:
        """To choose from, the simplest first."""

    def compute(
        self, placed: Placed, micro_batches: int, warmup: Sequence[int], ticks: Ticks | None = None
    ) -> list[list[Action]]:
        ticks, few = ticks or even_ticks(placed), min(micro_batches, _REHEARSED + 2 * len(placed))

        def rehearsed(policy: Policy) -> int:
            return replay(decide(placed, few, warmup, ticks, policy), placed, ticks)

        best = min(self.policies, key=rehearsed)
        every = [_one_f_one_b(placed, micro_batches, warmup)]
        every += [decide(placed, micro_batches, warmup, ticks, policy) for policy in (Policy(split=False), best)]
        return min(every, key=lambda lists: replay(lists, placed, ticks))

    def in_flight(self, micro_batches: int, warmup: int) -> int:
        return min(warmup, micro_batches)

    def period_s(self, times: MicroBatchTimes, warmup: Sequence[int]) -> float:
        """At least: a stage keeps each of its micro-batches for the way to the end and back, and its own work."""
        forward, inputs, _ = times.apart_s
        longest = max(*times.work_s, *times.link_s)
        for stage, (work, depth) in enumerate(zip(times.work_s, warmup, strict=True)):
            away_s = sum(forward[stage + 1 :]) + sum(inputs[stage + 1 :]) + 2 * sum(times.hop_s[stage:])
            longest = max(longest, (work + away_s) / depth)
        return longest

    def expected_period_s(self, times: MicroBatchTimes, micro_batches: int) -> float:
        """With warm-ups that hide what can be hidden."""
        return max(*times.work_s, *times.link_s)

    def expected_fill_s(self, times: MicroBatchTimes, micro_batches: int, period_s: float) -> float:
        """Where weight gradients are actions, no stage works before the first micro-batch comes, nor makes gradients
        before they come back, and none is idle then; the last one's other gradients go all the way to the first."""
        whole_s = super().expected_fill_s(times, micro_batches, period_s)
        if not self.splits:
            return whole_s
        forward, inputs, weights = times.apart_s
        back_s = list(accumulate(map(sum, zip(inputs, times.hop_s, strict=False)), initial=weights[0]))
        alone_s = times.there_s[-1] + forward[-1] + inputs[-1] + back_s[-1]
        ends_s = [
            max(there + micro_batches * f, alone_s - back - i) + micro_batches * i + max(micro_batches * w, back)
            for there, f, i, w, back in zip(times.there_s, forward, inputs, weights, back_s, strict=True)
        ]
        crossed_s = alone_s + (micro_batches - 1) * max(times.link_s)
        return min(whole_s, max(crossed_s, *ends_s) - micro_batches * period_s)

    def hiding_warmups(self, placed: Placed, times: MicroBatchTimes, usual: Sequence[int]) -> tuple[int, ...]:
        """Forwards for the way to the end and back, at the start, and weight gradients for the way to the first stage,
        at the end."""
        forward, inputs, weights = times.apart_s
        depths = []
        for stage, least in enumerate(usual):
            own = [chunk for chunk, where in enumerate(placed) if where == stage]
            first = own[0]
            there_s = sum(forward[first + 1 :]) + sum(inputs[first + 1 :]) + 2 * sum(times.hop_s[first:])
            back_s = sum(inputs[:first]) + sum(times.hop_s[:first]) + weights[0]
            work_s = sum(times.work_s[chunk] for chunk in own)
            filling = there_s / (max(forward[first], work_s / _MOST) or inf)
            emptying = back_s / (max(sum(weights[chunk] for chunk in own), work_s / _MOST) or inf)
            depths.append(max(least, ceil(max(filling, emptying)) + 1))
        return tuple(depths)


def _one_f_one_b(placed: Placed, micro_batches: int, warmup: Sequence[int]) -> Lists:
    """With warm-ups that it takes."""
    depths = list(warmup)
    if len(set(placed)) == len(placed):
        for stage, depth in zip(placed, accumulate((warmup[stage] for stage in placed), min), strict=True):
            depths[stage] = depth
    return OneFOneB().compute(placed, micro_batches, depths)


def ticks_of_seconds(times: MicroBatchTimes, hops_s: Iterable[tuple[float, float, float]]) -> Ticks:
    """Of chunks and, by boundary, of activation, gradient and latency."""
    tick_s = max(times.work_s) / _PRECISION or 1.0
    chunks, hops = (
        tuple(tuple(round(part / tick_s) for part in one) for one in every)
        for every in (zip(*times.parts_s, strict=True), hops_s)
    )
    return Ticks.model_validate({"chunks": chunks, "hops": hops})
