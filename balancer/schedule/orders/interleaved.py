"""Interleaved 1F1B: chunks go along the stages several times, and the pipeline fills with one of them."""

from __future__ import annotations

from balancer.errors import ScheduleError
from balancer.schedule.clock import Policy
from balancer.schedule.schedule import Placed
from balancer.schedule.timed import TimedSchedule


class Interleaved(TimedSchedule):
    """After Narayanan et al., "Efficient large-scale language model training on GPU clusters" (2104.04473), for chunks
    and hops that differ."""

    name = "interleaved"
    policies = (Policy(split=False), Policy(split=False, alternate=False))

    def wanted_placement(self, stages: int) -> Placed | None:
        return (*range(stages), *range(stages))

    def check_placement(self, placed: Placed) -> None:
        stages = len(set(placed))
        if list(placed) != list(placed[:stages]) * (len(placed) // stages):
            rule = f"chunks go along all {stages} stages again and again in one order, here they lie on {list(placed)}"
            raise ScheduleError(
                "stages", list(placed), rule, "give each stage one range of units, or as many as others"
            )
