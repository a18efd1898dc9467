"""What a schedule is: the order in which the stages of a pipeline compute, and what follows from it.

It is made for the stage of each chunk, in model order, a number of micro-batches, a warm-up of each stage, and, if it
is timed, what chunks and messages take. It decides computation alone; messages are added by
`balancer.schedule.lowering`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import ClassVar, NamedTuple

from balancer.plan.plan import Ticks
from balancer.schedule.action import STEP, Action, Actions, Kind

Placed = Sequence[int]
"""The stage of each chunk, in model order."""


class MicroBatchTimes(NamedTuple):
    """Seconds of one micro-batch: `work_s` forwards and backwards of each chunk in model order, `forward_s` the
    forwards' part of it, `hop_s` one way between neighbours (the mean of both ways), `link_s`, for which the
    busiest link is taken, by activations and by gradients, and `weight_s` the part of `work_s` that weight gradients
    take. Where these are an action of their own, backwards take `hidden_s` more in all. (None, where nobody says.)"""

    work_s: Sequence[float]
    forward_s: Sequence[float]
    hop_s: Sequence[float]
    link_s: tuple[float, float] = (0.0, 0.0)
    weight_s: Sequence[float] = ()
    hidden_s: Sequence[float] = ()

    @property
    def round_trip_s(self) -> float:
        """One micro-batch alone, to the end and back."""
        return sum(self.work_s) + 2 * sum(self.hop_s)

    @property
    def there_s(self) -> list[float]:
        """When the first micro-batch comes to each chunk."""
        ways = (forward + hop for forward, hop in zip(self.forward_s, self.hop_s, strict=False))
        return list(accumulate(ways, initial=0.0))

    @property
    def parts_s(self) -> tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]:
        """Forwards, gradients of inputs and of weights in a whole backward, and what this hides."""
        nothing = [0.0] * len(self.work_s)
        weights = self.weight_s or nothing
        inputs = [b - w for b, w in zip(self.backward_s, weights, strict=True)]
        return self.forward_s, inputs, weights, self.hidden_s or nothing

    @property
    def apart_s(self) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
        """Forwards, gradients of inputs, and gradients of weights, where each is an action."""
        forward, inputs, weights, hidden = self.parts_s
        return forward, [i + h for i, h in zip(inputs, hidden, strict=True)], weights

    @property
    def backward_s(self) -> list[float]:
        return [work - forward for work, forward in zip(self.work_s, self.forward_s, strict=True)]


class Schedule(ABC):
    """One way to order forwards and backwards. A `timed` one reads ticks, which completion writes into plans for it;
    without any, chunks are alike to it. One that `splits` backwards fills with weight gradients what would be idle. One
    that is not `searched` has no merit that another lacks."""

    name: ClassVar[str]
    timed: ClassVar[bool] = False
    splits: ClassVar[bool] = False
    searched: ClassVar[bool] = True

    @abstractmethod
    def compute(
        self, placed: Placed, micro_batches: int, warmup: Sequence[int], ticks: Ticks | None = None
    ) -> list[list[Action]]:
        """What each stage computes, in order. Raises ScheduleError for warm-ups that it refuses."""

    @abstractmethod
    def in_flight(self, micro_batches: int, warmup: int) -> int:
        """How many micro-batches a stage keeps at once: all that have begun there and are not done. With several
        chunks on a stage it may be fewer."""

    @abstractmethod
    def period_s(self, times: MicroBatchTimes, warmup: Sequence[int]) -> float:
        """Seconds from micro-batch to micro-batch in the steady state, with one chunk on each stage. A step takes a
        round trip of the first one, and a period for each other."""

    def expected_period_s(self, times: MicroBatchTimes, micro_batches: int) -> float:
        """What a search reckons with, while it doesn't know yet how deep warm-ups will be."""
        return self.period_s(times, self.usual_warmups(range(len(times.work_s)), micro_batches))

    def expected_fill_s(self, times: MicroBatchTimes, micro_batches: int, period_s: float) -> float:
        """What a step takes beyond a period for each micro-batch, at warm-ups that hide its hops."""
        return times.round_trip_s - period_s

    def wanted_placement(self, stages: int) -> Placed | None:
        """Where a plan does not say which chunks a stage has: the stage of each chunk, or None for one each."""
        return None

    def check_placement(self, placed: Placed) -> None:  # noqa: B027
        """Raises ScheduleError for chunks that `compute` has no order for."""

    def check_warmups(self, placed: Placed, micro_batches: int, warmup: Sequence[int]) -> None:  # noqa: B027
        """Raises ScheduleError for warm-ups that `compute` would refuse."""

    def usual_warmups(self, placed: Placed, micro_batches: int) -> tuple[int, ...]:
        """As many micro-batches as fit into the way from a stage's first chunk to the end."""
        stages = range(max(placed) + 1)
        ahead = (len(placed) - placed.index(s) for s in stages)
        depths = (-(-way // placed.count(s)) for s, way in zip(stages, ahead, strict=True))
        return tuple(max(1, min(depth, micro_batches)) for depth in depths)

    def hiding_warmups(self, placed: Placed, times: MicroBatchTimes, usual: Sequence[int]) -> tuple[int, ...]:
        """Deep enough to hide the hops, and nowhere less than `usual`: that, if deeper ones would hide nothing."""
        return tuple(usual)

    def actions(
        self, placed: Placed, micro_batches: int, warmup: Sequence[int], ticks: Ticks | None = None
    ) -> tuple[Actions, ...]:
        """One list per stage: SYNC of each chunk follows its last backward, STEP ends the list. Raises ScheduleError
        for chunks or warm-ups that it refuses."""
        self.check_placement(placed)
        return tuple(_with_sync_and_step(actions) for actions in self.compute(placed, micro_batches, warmup, ticks))


def _with_sync_and_step(actions: Sequence[Action]) -> Actions:
    last = {action.chunk: i for i, action in enumerate(actions) if action.kind in (Kind.B, Kind.W)}
    done: list[Action] = []
    for i, action in enumerate(actions):
        done.append(action)
        if last.get(action.chunk) == i:
            done.append(Action(Kind.SYNC, action.chunk, -1))
    return (*done, STEP)
