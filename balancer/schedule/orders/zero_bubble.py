"""Zero bubble: weight gradients, for which nobody waits, fill the holes."""

from __future__ import annotations

from balancer.schedule.clock import Policy
from balancer.schedule.timed import TimedSchedule


class ZeroBubble(TimedSchedule):
    """After Qi et al., "Zero bubble pipeline parallelism" (2401.10241), for chunks and hops that differ."""

    name = "zero-bubble"
    splits = True
    policies = (Policy(split=True), Policy(split=True, patience=100), Policy(split=True, alternate=False))
