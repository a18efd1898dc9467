"""How good a plan is known to be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Unseen(str, Enum):
    """What a search has not looked through: `shapes`, all pipelines that may be formed; `stages`, those with fewer
    stages than there is room for; `plans`, all cuts, strategies and shares of those that it has looked at."""

    SHAPES = "shapes"
    STAGES = "stages"
    PLANS = "plans"


@dataclass(frozen=True)
class SpaceSizes:
    """`layouts` are ways to make equal pipelines of some pools, of which `pruned` fit no memory. `priced` groupings
    have been cut, `enumerated` plans listed one by one, and `simulated` ones simulated. `ways` is how many groupings
    there are: layouts joined, in every order, under every schedule."""

    layouts: int
    pruned: int
    ways: int
    priced: int
    enumerated: int
    simulated: int


@dataclass(frozen=True)
class Certificate:
    """No plan of the space is faster than `bound_s`; where that is less than what was found, `left` says what has not
    been looked through."""

    bound_s: float
    step_s: float
    left: frozenset[Unseen]
    interrupted: bool = False

    @property
    def gap(self) -> float:
        """By how much the plan that was found may be slower than the best one, at most."""
        return self.step_s / self.bound_s - 1 if self.bound_s > 0 else float("inf")

    @property
    def proven(self) -> bool:
        """Whether nothing is faster."""
        return not self.left
