"""1F1B for stages with several chunks: greedy list scheduling on a clock where a forward takes 1 and a backward 2."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.schedule.action import Action, Kind

_TICKS = {Kind.F: 1, Kind.B: 2}
_Key = tuple[int, int, int]


class _Clock:
    """Where the greedy stands: next forward and backward of every chunk, and when each one ended."""

    def __init__(self, stage_of_chunk: Sequence[int], micro_batches: int, warmup: Sequence[int]) -> None:
        self.placed, self.micro_batches, self.warmup = stage_of_chunk, micro_batches, warmup
        self.chunks: list[list[int]] = [[] for _ in range(max(stage_of_chunk) + 1)]
        for chunk, stage in enumerate(stage_of_chunk):
            self.chunks[stage].append(chunk)
        self.now = [0] * len(self.chunks)
        self.ended: dict[Kind, list[list[int]]] = {kind: [[] for _ in stage_of_chunk] for kind in _TICKS}

    def ready(self, kind: Kind, chunk: int) -> int | None:
        """When the inputs of the chunk's next action of that kind are there; None while that isn't known."""
        m = len(self.ended[kind][chunk])
        if m == self.micro_batches:
            return None
        last = len(self.placed) - 1
        if kind is Kind.F:
            source = None if chunk == 0 else self.ended[Kind.F][chunk - 1]
        else:
            source = self.ended[Kind.F][last] if chunk == last else self.ended[Kind.B][chunk + 1]
        if source is None:
            return 0
        return source[m] if m < len(source) else None

    def full(self, chunk: int) -> bool:
        """Whether the chunk is its stage's entry and the stage has its bound of micro-batches in flight."""
        stage = self.placed[chunk]
        if chunk != self.chunks[stage][0]:
            return False
        return len(self.ended[Kind.F][chunk]) - len(self.ended[Kind.B][chunk]) >= self.warmup[stage]

    def best(self, stage: int) -> tuple[_Key, Action] | None:
        """The stage's earliest possible action; backward before forward, later chunk before earlier."""
        found: list[tuple[_Key, Action]] = []
        for kind in (Kind.B, Kind.F):
            for chunk in self.chunks[stage]:
                ready = self.ready(kind, chunk)
                if ready is not None and not (kind is Kind.F and self.full(chunk)):
                    key = (max(self.now[stage], ready), kind is Kind.F, -chunk)
                    found.append((key, Action(kind, chunk, len(self.ended[kind][chunk]))))
        return min(found) if found else None

    def run(self, stage: int, action: Action, start: int) -> None:
        end = self.now[stage] = start + _TICKS[action.kind]
        self.ended[action.kind][action.chunk].append(end)


def list_schedule(stage_of_chunk: Sequence[int], micro_batches: int, warmup: Sequence[int]) -> list[list[Action]]:
    """Repeatedly run what can start first. Only a stage's entry chunk is held back by the bound, so every micro-batch
    that has entered a stage can leave it, and the oldest one can always move: no placement deadlocks."""
    clock = _Clock(stage_of_chunk, micro_batches, warmup)
    lists: list[list[Action]] = [[] for _ in clock.chunks]
    for _ in range(2 * micro_batches * len(stage_of_chunk)):
        choices = [(choice, stage) for stage in range(len(lists)) if (choice := clock.best(stage)) is not None]
        (key, action), stage = min(choices)
        clock.run(stage, action, key[0])
        lists[stage].append(action)
    return lists
