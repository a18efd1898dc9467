"""Which micro-batch of which stage a step has computed again, and by whom."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.plan.plan import Range
from bridge.rank import RankId
from hetero.engine.step.stage import RankPlace, places
from hetero.engine.wiring import active_ranks
from hetero.words.spec import RunSpec


@dataclass(frozen=True)
class ShadowTurn:
    """Of the stage at `place`, as its first rank sees it, which holds the units of `chunks`; `rank` computes it
    again."""

    step: int
    place: RankPlace
    chunks: tuple[Range, ...]
    micro_batch: int
    rank: RankId

    @property
    def pool(self) -> str:
        """The stage's."""
        return self.place.ranks[0].pool


def turn_of(spec: RunSpec, step: int) -> ShadowTurn | None:
    """After every `train.shadow.every` steps one stage of the other pools, in the plan's order, then the next
    micro-batch of each. None in all other steps, and where the plan has stages of one of both kinds only."""
    options = spec.train.shadow
    if options is None or (step + 1) % options.every:
        return None
    watched = [place for place in places(spec.plan) if place.ranks[0].pool != options.pool]
    ranks = active_ranks(spec.plan).get(options.pool)
    if not watched or not ranks:
        return None
    lap, number = divmod(step // options.every, len(watched))
    place = watched[number]
    pipeline = spec.plan.pipelines[place.pipeline]
    chunks = tuple(chunk.units for chunk in pipeline.chunks() if chunk.stage == place.stage)
    return ShadowTurn(step, place, chunks, lap % pipeline.micro_batches, ranks[0])
