"""Between which seconds a step lies, by how much chips differ from one action to the next, and how well they are known:
a prediction replayed many times over, each time as chance has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from typing import NamedTuple

import numpy as np

from balancer.plan.equal import equal_pipelines
from balancer.plan.plan import StagePlan
from balancer.simulate.prediction import Prediction
from balancer.simulate.replay import Drawn, Factors, Replay

PART = 0.9
"""Of all steps, those that lie in a band."""
MISSED = 0.004
"""What a prediction misses where nothing is left to chance, as a fraction: one standard deviation."""
SYNC_MISSED = 0.03
"""The same of what gradients, norm, update and parameters add to the computing, as 25 plans of `benchmarks.predicted`
were measured."""
_SAMPLES, _FEWEST, _ACTIONS = 256, 32, 2_000_000
"""So many samples, but no more actions in all than these."""


class Noise(NamedTuple):
    """Of the chips of a pool, as fractions: how much one action of a chip differs from the next, and how wrong what was
    measured may be for all of them, and for all updates. One standard deviation each."""

    spread: float
    error: float
    update_error: float


@dataclass(frozen=True)
class Band:
    """Seconds of a step: the mean, and between which 9 of 10 lie."""

    mean_s: float
    low_s: float
    high_s: float


def band(prediction: Prediction, noise: Mapping[str, Noise], steps: int = 1, seed: int = 0) -> Band | None:
    """Of the mean of so many steps; None where the plan uses a pool of which nothing is known. Sums of
    gradients and the return of parameters are taken to be as long as predicted, but for what that misses."""
    if not prediction.plan.pools() <= noise.keys():
        return None
    drawn = np.random.default_rng(seed)
    one_each = {numbers[0] for numbers in equal_pipelines(prediction.plan)}
    stages = ((place, stage) for place, stage in prediction.plan.stages() if place[0] in one_each)
    actions = sum(len(prediction.spans[place]) * stage.tp for place, stage in stages)
    size = max(_FEWEST, min(_SAMPLES, _ACTIONS // max(1, actions)))
    pools = sorted(noise.items())
    wrong = {pool: 1 + known.error * drawn.standard_normal((1, size)) for pool, known in pools}
    update = {pool: 1 + known.update_error * drawn.standard_normal((1, size)) for pool, known in pools}

    def chance(stage: StagePlan) -> Drawn:
        return np.exp(noise[stage.pool].spread * drawn.standard_normal((stage.tp, size)))

    differ = _relative(prediction, chance, chance, drawn)
    each_step = drawn.choice(differ, (size, steps)).mean(axis=1)
    known = _relative(prediction, lambda stage: wrong[stage.pool], lambda stage: update[stage.pool], drawn)
    relative = each_step * known
    missed_s = hypot(MISSED * prediction.step_s, SYNC_MISSED * prediction.sync_s) * drawn.standard_normal(size)
    seconds = prediction.step_s + prediction.compute_s * (relative - 1) + missed_s
    low, high = np.quantile(seconds, [(1 - PART) / 2, (1 + PART) / 2])
    return Band(float(seconds.mean()), float(low), float(high))


def _relative(prediction: Prediction, factors: Factors, updates: Factors, drawn: np.random.Generator) -> Drawn:
    """The end of all computing over that of the same without chance. Of equal pipelines one is replayed, and when the
    last of them ends is drawn from what it took."""
    ends, plain = list[Drawn](), 0.0
    for numbers in equal_pipelines(prediction.plan):
        replay = Replay(prediction, numbers[0])
        took = replay.ends(factors, updates)
        if len(numbers) > 1:
            took = np.quantile(took, drawn.random(took.shape) ** (1 / len(numbers)))
        ends.append(took)
        plain = max(plain, float(replay.ends(_as_told, _as_told)[0]))
    return np.asarray(np.max(ends, axis=0) / plain)


def _as_told(_: StagePlan) -> Drawn:
    return np.ones((1, 1))
