"""What tests of the simulator predict."""

from __future__ import annotations

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.problem import Problem
from balancer.simulate.simulate import Scenario, run


def predict(chips, work, written, **scenario):
    completed = complete(written, Problem(chips, work))
    return run(Scenario(completed, Problem(chips, work, datasheet_times(chips, work)), **scenario))
