"""V: chunks go along the stages and back, so that the first and the last one are on the same chip."""

from __future__ import annotations

from balancer.errors import ScheduleError
from balancer.schedule.orders.zero_bubble import ZeroBubble
from balancer.schedule.schedule import Placed


class V(ZeroBubble):
    """ZB-V of Qi et al., "Pipeline parallelism with controllable memory" (2405.15362), for stages and hops that differ:
    what a stage keeps of a micro-batch is there for a shorter time the longer its other chunk waits for it."""

    name = "v"

    def wanted_placement(self, stages: int) -> Placed | None:
        return (*range(stages), *reversed(range(stages)))

    def check_placement(self, placed: Placed) -> None:
        stages = len(set(placed))
        there = list(placed[:stages])
        if list(placed) not in (there + there[::-1], there + there[-2::-1]):
            wanted = list(self.wanted_placement(stages) or ())
            rule = f"chunks go along the stages and back: of {stages} they lie on {wanted}, here on {list(placed)}"
            raise ScheduleError(
                "stages", list(placed), rule, "give each stage one range of units, or two in that order"
            )
