"""Pipelines on a clock: what each stage does when, from the same lowered lists that the executor obeys.

A stage goes on by itself until it waits for a message that nobody has sent, or sends one over a wire that others use
too: whose turn it is there is known when all that comes before has happened, so that waits on the agenda.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import NamedTuple, Protocol

from balancer.cost.stage_times import stage_time, stage_unit_time
from balancer.plan.plan import PipelinePlan, Place, Range, Ticks
from balancer.schedule.action import COMPUTING, KINDS, PURPOSES, Action, Actions, Kind, refuse_unknown
from balancer.schedule.lowering import last_backwards, lowered, schedule_of
from balancer.simulate.agenda import Agenda
from balancer.simulate.links import LinkDirection, SimulatedLinks, Wire
from balancer.simulate.scenario import Pace, Scenario

TimedAction = tuple[Action, float, float]
_NONE = -1


class Way(NamedTuple):
    """Of the messages of one purpose over one boundary: the stages that send and take them, over what, and how much."""

    sender: int
    receiver: int
    direction: LinkDirection
    bytes: float


class ComputationListener(Protocol):
    """Hears what a stage does when that is known, which may be before it happens."""

    def last_backward(self, place: Place, action: Action, end: float) -> None:
        """Of a chunk."""

    def computed(self, place: Place, end: float) -> None:
        """All of a stage's list."""


class StageRun:
    """What one stage has done, and where it stands in its list. `lasts` are the last backwards of its chunks with their
    ends, and `ready_at` is when its list is at STEP."""

    def __init__(
        self, place: Place, items: Sequence[_Item], seconds: Sequence[float], pause_s: float, now: float
    ) -> None:
        self.place, self.items, self.seconds, self.pause_s = place, items, seconds, pause_s
        self.next, self.now = 0, now
        self.spans: list[TimedAction] = []
        self.lasts: list[tuple[Action, float]] = []
        self.ready_at = 0.0

    @cached_property
    def busy_s(self) -> float:
        """Of a list that is done."""
        return sum(end - start for _, start, end in self.spans)


class Computation:
    """Some pipelines of a scenario, as if all parameters were there."""

    def __init__(
        self,
        scenario: Scenario,
        pipelines: Iterable[int],
        links: SimulatedLinks,
        agenda: Agenda,
        listener: ComputationListener | None = None,
        late_s: Mapping[int, float] | None = None,
    ) -> None:
        """A listener may send over any of the links. `late_s` is when pipelines begin, by default at once."""
        self.stages: dict[Place, StageRun] = {}
        self.ways: dict[int, list[Way]] = {}
        """By pipeline; the boundary behind chunk c has 2 * c for activations and 2 * c + 1 for gradients."""
        self._agenda, self._listener = agenda, listener
        self._arrivals: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._waiting: dict[tuple[int, int], StageRun] = {}
        self._ready: list[StageRun] = []
        for p in pipelines:
            pipeline = scenario.plan.pipelines[p]
            self.ways[p] = list(_ways(pipeline, scenario, links))
            for s, items in enumerate(_programs(pipeline, scenario.plan.schedule)):
                self.stages[p, s] = StageRun((p, s), items, *_seconds(p, s, scenario), late_s[p] if late_s else 0.0)
        self._apart = self._only_users()

    def run(self) -> None:
        """To the end, and the agenda with it."""
        self._ready = list(self.stages.values())[::-1]
        self._go_on()
        self._agenda.run()

    def _only_users(self) -> dict[int, list[bool]]:
        """By pipeline and way, whether nobody but its sender uses the wires."""
        users: defaultdict[Wire, set[Place]] = defaultdict(set)
        for p, ways in self.ways.items():
            for way in ways:
                for wire in way.direction.wires:
                    users[wire].add((p, way.sender))
        return {
            p: [self._listener is None and all(len(users[wire]) == 1 for wire in way.direction.wires) for way in ways]
            for p, ways in self.ways.items()
        }

    def _go_on(self) -> None:
        while self._ready:
            self._advance(self._ready.pop())

    def _advance(self, stage: StageRun) -> None:
        items, seconds, pause_s, now, p = stage.items, stage.seconds, stage.pause_s, stage.now, stage.place[0]
        arrivals, apart = self._arrivals[p], self._apart[p]
        for number in range(stage.next, len(items)):
            awaited, action, slot, is_last, made, way = items[number]
            if awaited != _NONE:
                arrival = arrivals.get(awaited)
                if arrival is None:
                    stage.next, stage.now, self._waiting[p, awaited] = number, now, stage
                    return
                if arrival > now:
                    now = arrival
            if action is not None:
                now += pause_s
                end = now + seconds[slot]
                stage.spans.append((action, now, end))
                now = end
                if is_last:
                    self._end_chunk(stage, action, end)
            if made != _NONE:
                if not apart[way]:
                    stage.next = number
                    self._agenda.at(now, (1, *stage.place), partial(self._take_turn, stage))
                    return
                self._send(p, items[number], now)
        stage.next, stage.ready_at = len(items), now
        if self._listener is not None:
            self._listener.computed(stage.place, now)

    def _end_chunk(self, stage: StageRun, action: Action, end: float) -> None:
        stage.lasts.append((action, end))
        if self._listener is not None:
            self._listener.last_backward(stage.place, action, end)

    def _take_turn(self, stage: StageRun, now: float) -> None:
        """Send what the stage has made, and go on."""
        self._send(stage.place[0], stage.items[stage.next], now)
        stage.next, stage.now = stage.next + 1, now
        self._ready.append(stage)
        self._go_on()

    def _send(self, p: int, item: _Item, now: float) -> None:
        way = self.ways[p][item.way]
        self._arrivals[p][item.made] = way.direction.carry(way.bytes, now)
        waiting = self._waiting.pop((p, item.made), None)
        if waiting is not None:
            self._ready.append(waiting)


class _Item(NamedTuple):
    """A computation (or none) with the numbers of the message that it waits for and of the one that it makes. `slot`
    says how long it takes, `way` how what it makes goes."""

    awaited: int = _NONE
    action: Action | None = None
    slot: int = _NONE
    is_last: bool = False
    made: int = _NONE
    way: int = _NONE


def _programs(pipeline: PipelinePlan, schedule: str) -> tuple[tuple[_Item, ...], ...]:
    """By stage."""
    return _compiled(*schedule_of(pipeline, schedule))


@lru_cache(maxsize=256)
def _compiled(
    name: str, placed: tuple[int, ...], micro_batches: int, warmups: tuple[int, ...], ticks: Ticks | None
) -> tuple[tuple[_Item, ...], ...]:
    lists = lowered(name, placed, micro_batches, warmups, ticks)
    return tuple(tuple(_items(actions, micro_batches)) for actions in lists)


def _items(actions: Actions, micro_batches: int) -> Iterator[_Item]:
    """A message that is waited for, a computation and a message that it makes are one item, where they follow each
    other so."""
    refuse_unknown(actions, KINDS, "the simulator")
    lasts, item = last_backwards(actions), _Item()
    for action in actions:
        kind = action.kind
        if kind in COMPUTING:
            if item.action is not None or item.made != _NONE:
                yield item
                item = _Item()
            slot = action.chunk * len(COMPUTING) + COMPUTING.index(kind)
            item = item._replace(action=action, slot=slot, is_last=lasts.get(action.chunk) == action)
        elif kind in (Kind.RECV, Kind.SEND):
            way = 2 * action.boundary + PURPOSES.index(action.purpose)
            message = way * micro_batches + action.micro_batch
            if kind is Kind.RECV:
                if item != _Item():
                    yield item
                item = _Item(awaited=message)
            elif item.made != _NONE:
                yield item
                item = _Item(made=message, way=way)
            else:
                item = item._replace(made=message, way=way)
    yield item


def _ways(pipeline: PipelinePlan, scenario: Scenario, links: SimulatedLinks) -> Iterator[Way]:
    topology, workload = scenario.topology, scenario.workload
    for chunk, after in pairwise(pipeline.chunks()):
        here, there = pipeline.stages[chunk.stage], pipeline.stages[after.stage]
        link, units = topology.link(here.pool, there.pool), workload.at(topology.crossing(here.pool, there.pool)).units
        size = units[chunk.units[1] - 1].boundary_bytes * pipeline.micro_batch
        yield Way(chunk.stage, after.stage, links.between(here, there), size * link.activation_ratio)
        yield Way(after.stage, chunk.stage, links.between(there, here), size * link.gradient_ratio)


def _seconds(p: int, s: int, scenario: Scenario) -> tuple[list[float], float]:
    """By slot, of each chunk and kind, if the chunk is the stage's; and the pause before each."""
    pipeline, pace = scenario.plan.pipelines[p], scenario.paces.get((p, s), Pace())
    size, stage, found = pipeline.micro_batch, pipeline.stages[s], list[float]()
    for chunk in pipeline.chunks():
        units = range(*chunk.units) if chunk.stage == s else range(0)
        costs, slower = (scenario.times, scenario.topology, scenario.workload), size * scenario.time_scale * pace.ratio
        time = stage_time(*costs, stage, units, size).slowed(slower) if units else None
        found += [time.of(kind) if time else 0.0 for kind in COMPUTING]
    return found, pace.pause_s


def made_at(scenario: Scenario, place: Place, action: Action, end: float) -> Iterator[tuple[int, float]]:
    """The units of a chunk, and when its last backward has made the gradients of each: of the first one at its end."""
    units = scenario.plan.pipelines[place[0]].chunks()[action.chunk].units
    for unit, seconds in zip(range(*units), _unit_seconds(scenario, place, units, action.kind), strict=True):
        yield unit, end
        end -= seconds


def _unit_seconds(scenario: Scenario, place: Place, units: Range, kind: Kind) -> Sequence[float]:
    """What each of these units of a stage adds to an action; of equal stages once."""
    p, s = place
    pipeline, pace = scenario.plan.pipelines[p], scenario.paces.get(place, Pace())
    stage, size = pipeline.stages[s], pipeline.micro_batch
    key = stage.pool, stage.tp, stage.units, *stage.strategies().items(), size, units, kind, pace.ratio
    if key not in scenario.unit_seconds:
        costs, slower = (scenario.times, scenario.topology, scenario.workload), size * scenario.time_scale * pace.ratio
        times = (stage_unit_time(*costs, stage, unit, size) for unit in range(*units))
        scenario.unit_seconds[key] = [time.of(kind) * slower for time in times]
    return scenario.unit_seconds[key]
