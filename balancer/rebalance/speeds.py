"""How fast the pools are, by what their stages take: noise is no change, and a change is seen within a few steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from math import exp, log, sqrt
from statistics import fmean, median

from balancer.plan.plan import Place
from balancer.simulate.simulate import Prediction

Slowness = Mapping[tuple[str, int], float]
"""By pool and tp, seconds over those that the plan's times say."""
JUMP_STEPS, DRIFT_STEPS = 5, 20
"""Most of so many steps tell of a change: a large one soon, one that noise hides later."""
LEAST = 0.05
"""No less is a change: a level that few noisy steps have told is off by half of that."""
SIGNIFICANT = 5.0
"""A median of n steps strays by a quarter more than noise / sqrt(n), and by four times that hardly ever."""
USUAL_NOISE, NOISE_STEPS = 0.02, 100
"""Neighbouring steps differ by so much until that many have shown it."""
EXACT = 0.01
"""A new level is believed once it is known that well, or by `JUMP_STEPS`."""


class SpeedWatch:
    """Hears every step of an epoch in turn. `slowness` is what it believes."""

    def __init__(self) -> None:
        self._believed: dict[tuple[str, int], float] = {}
        self._seen: dict[tuple[str, int], deque[float]] = {}
        self._apart: dict[tuple[str, int], deque[float]] = {}
        self._stages: dict[tuple[str, int], list[Place]] = {}
        self._expected: Mapping[Place, float] = {}

    @property
    def slowness(self) -> Slowness:
        return {key: exp(level) for key, level in self._believed.items()}

    def begin(self, prediction: Prediction, time_scale: float) -> None:
        """An epoch, of which it hears from its second step on. `prediction` is by the plan's own times."""
        self._expected = {place: seconds * time_scale for place, seconds in prediction.busy_s.items()}
        self._stages = {}
        for place, stage in prediction.plan.stages():
            self._stages.setdefault((stage.pool, stage.tp), []).append(place)
        before, self._believed = self._believed, {}
        for pool, tp in before.keys() | self._stages.keys():
            known = [level for (name, _), level in before.items() if name == pool]
            self._believed[pool, tp] = before.get((pool, tp), fmean(known) if known else 0.0)
        self._seen = {key: deque(maxlen=DRIFT_STEPS) for key in self._stages}

    def hear(self, stages_s: Mapping[Place, float]) -> bool:
        """What each stage computed in a step; whether a pool is known to have another speed than was believed. A step
        that leaves a stage out says nothing."""
        if not self._expected.keys() <= stages_s.keys() or min(stages_s.values()) <= 0:
            return False
        found = {key: self._level(key, stages_s) for key in self._stages}
        changed = {key: level for key, level in found.items() if level is not None}
        for (pool, tp), level in changed.items():
            shift = level - self._believed[pool, tp]
            for other in self._believed:
                if other[0] == pool and (other == (pool, tp) or other not in self._stages):
                    self._believed[other] += shift
            self._seen[pool, tp].clear()
        return bool(changed)

    def _level(self, key: tuple[str, int], stages_s: Mapping[Place, float]) -> float | None:
        """The new one, if there is one."""
        seen, places = self._seen[key], self._stages[key]
        level = log(sum(stages_s[place] for place in places) / sum(self._expected[place] for place in places))
        if seen:
            self._apart.setdefault(key, deque(maxlen=NOISE_STEPS)).append(abs(level - seen[-1]))
        seen.append(level)
        noise, recent = _noise(self._apart.get(key, ())), list(seen)[-JUMP_STEPS:]
        believed = self._believed[key]
        if len(recent) > JUMP_STEPS // 2 and _differs(recent, believed, noise):
            fresh = _since_change(recent, believed)
            known = len(fresh) > JUMP_STEPS // 2 and 1.25 * noise / sqrt(len(fresh)) <= EXACT
            return median(fresh) if known or len(fresh) == JUMP_STEPS else None
        has_drifted = len(seen) == DRIFT_STEPS and _differs(seen, believed, noise)
        return median(seen) if has_drifted else None


def _differs(levels: Sequence[float], believed: float, noise: float) -> bool:
    return abs(median(levels) - believed) > max(log(1 + LEAST), SIGNIFICANT * noise / sqrt(len(levels)))


def _noise(apart: Iterable[float]) -> float:
    """Of one step, by what neighbours differ, which no change of the level spoils; at first it is as usual."""
    known = list(apart)
    return 1.05 * median([*known, *[USUAL_NOISE] * max(0, DRIFT_STEPS - len(known))])


def _since_change(recent: Sequence[float], before: float) -> list[float]:
    """The last ones, as far back as they are nearer to the new level than to the one before."""
    now = median(recent)
    return list(takewhile(lambda level: abs(level - now) <= abs(level - before), reversed(recent)))
