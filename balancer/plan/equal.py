"""Equal pipelines are one thing to a reader: which they are, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

from balancer.plan.plan import PipelinePlan, Plan

_MOST_RANGES = 4


def equal_pipelines(plan: Plan) -> list[tuple[int, ...]]:
    """The numbers of the pipelines that differ in nothing but the chips that they run on and the units that they
    update, in order of the first of each."""
    return alike(map(_signature, plan.pipelines))


def alike(items: Iterable[Hashable]) -> list[tuple[int, ...]]:
    """The places of equal items, in order of the first of each."""
    found: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(item, []).append(place)
    return [tuple(places) for places in found.values()]


def named(numbers: Sequence[int]) -> str:
    """Pipelines such as "pipelines 0-7 (x 8)"."""
    return f"pipeline{'s' * (len(numbers) > 1)} {numbered(numbers)}"


def numbered(numbers: Sequence[int], counted: bool = True) -> str:
    """Ascending numbers such as "0-3, 6 (x 5)"; one alone is itself."""
    ranges = list(_ranges(numbers))
    rest = ", ..." if len(ranges) > _MOST_RANGES else ""
    times = f" (x {len(numbers)})" if counted and len(numbers) > 1 else ""
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in ranges[:_MOST_RANGES]) + rest + times


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    begin = last = None
    for number in numbers:
        if begin is None or last is None:
            begin = number
        elif number != last + 1:
            yield begin, last
            begin = number
        last = number
    if begin is not None and last is not None:
        yield begin, last


def _signature(pipeline: PipelinePlan) -> Hashable:
    """All that it says, but for which chips it has and which units they own."""
    stages = tuple(stage.model_copy(update={"chips": None, "owns": None}) for stage in pipeline.stages)
    return pipeline.model_copy(update={"stages": stages})
