"""One suite for every schedule in the registry."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.errors import ScheduleError
from balancer.plan.plan import ChunkTicks, Ticks
from balancer.problem import Problem
from balancer.schedule import registry
from balancer.schedule.action import KINDS, STEP, Action, Kind, refuse_unknown
from balancer.schedule.consistency import check
from balancer.schedule.grid import format_grid
from balancer.schedule.lowering import forward_only, lower
from balancer.schedule.registry import schedule, schedules
from balancer.schedule.schedule import Schedule
from balancer.simulate.simulate import simulate
from tests.examples import out_of_100
from tests.unit.balancer.cases import plan, pool, topology, workload

ALL = pytest.mark.parametrize("name", schedules())
FEW = out_of_100(15)


@st.composite
def cases(draw, most_chunks=3):
    """(stage of each chunk, micro-batches, warm-ups, ticks): plain, interleaved, V-shaped and arbitrary placements."""
    stages, v = draw(st.integers(1, 6)), draw(st.integers(1, most_chunks))
    forth = list(range(stages))
    shapes = {"interleaved": forth * v, "v": [s for i in range(v) for s in (forth if i % 2 == 0 else forth[::-1])]}
    shapes["any"] = draw(st.permutations(shapes["interleaved"]))
    placed = shapes[draw(st.sampled_from(sorted(shapes)))]
    micro_batches = draw(st.integers(1, 32))
    depths = sorted(draw(st.lists(st.integers(1, 12), min_size=stages, max_size=stages)), reverse=True)
    by_first_chunk = sorted(range(stages), key=placed.index)
    warmup = [0] * stages
    for stage, depth in zip(by_first_chunk, depths, strict=True):
        warmup[stage] = depth
    return tuple(placed), micro_batches, tuple(warmup), draw(st.none() | ticks(len(placed)))


@st.composite
def ticks(draw, chunks):
    """Of chunks of very different lengths, some without weight gradients, and hops that are nothing or long."""
    random = draw(st.randoms(use_true_random=False))
    each = [[random.choice((0, 1, 7, 10, 40)) + random.randrange(3) for _ in range(4)] for _ in range(chunks)]
    hops = [tuple(random.choice((0, 0, 5, 30)) for _ in range(3)) for _ in range(chunks - 1)]
    return Ticks(chunks=tuple(ChunkTicks(*one) for one in each), hops=tuple(hops))


def legal(name, case):
    """The case with the schedule's own placement and warm-ups where it refuses those."""
    placed, micro_batches, warmup, made_for = case
    try:
        schedule(name).check_placement(placed)
    except ScheduleError:
        placed, made_for = schedule(name).wanted_placement(len(warmup)), None
    try:
        schedule(name).check_warmups(placed, micro_batches, warmup)
    except ScheduleError:
        warmup = schedule(name).usual_warmups(placed, micro_batches)
    return placed, micro_batches, warmup, made_for


@ALL
@given(case=cases())
@FEW
def test_every_action_happens_once_and_in_its_place(name, case):
    """A backward is one action, or two in their order."""
    placed, micro_batches, _, _ = case = legal(name, case)
    lists = schedule(name).actions(*case)
    for stage, actions in enumerate(lists):
        refuse_unknown(actions, KINDS, "whoever reads it")
        assert all(placed[a.chunk] == stage for a in actions if a is not STEP)
        at = {a: i for i, a in enumerate(actions)}
        assert len(at) == len(actions)
        assert actions[-1] == STEP
        for chunk in (c for c, s in enumerate(placed) if s == stage):
            whole = Action(Kind.B, chunk, 0) in at
            order = (Kind.F, Kind.B) if whole else (Kind.F, Kind.I, Kind.W)
            for m in range(micro_batches):
                places = [at[Action(kind, chunk, m)] for kind in order]
                assert places == sorted(places)
            assert actions[max(at[Action(order[-1], chunk, m)] for m in range(micro_batches)) + 1].kind is Kind.SYNC
            of_chunk = Counter(a.kind for a in actions if a.chunk == chunk)
            assert of_chunk == {**dict.fromkeys(order, micro_batches), Kind.SYNC: 1}


@ALL
@given(case=cases())
@FEW
def test_lowered_lists_agree_and_never_deadlock(name, case):
    case = legal(name, case)
    lowered = lower(schedule(name).actions(*case), case[0])
    check(lowered)
    crossing = sum(a != b for a, b in zip(case[0], case[0][1:], strict=False))
    assert sum(a.kind is Kind.SEND for actions in lowered for a in actions) == 2 * crossing * case[1]


@pytest.mark.slow
@ALL
@given(case=cases(), seed=st.integers(0, 2**32))
@FEW
def test_runs_to_its_end_under_any_times(name, case, seed):
    """Execute the lists in a random interleaving, each stage one action at a time, messages arriving whenever."""
    case = legal(name, case)
    lowered = lower(schedule(name).actions(*case), case[0])
    random = Random(seed)
    position, sent, arrived = [0] * len(lowered), [], set()
    while any(position[s] < len(lowered[s]) for s in range(len(lowered))):
        while sent and random.random() < 0.5:
            arrived.add(sent.pop(random.randrange(len(sent))))
        able = []
        for s, actions in enumerate(lowered):
            action = actions[position[s]] if position[s] < len(actions) else None
            message = action and (action.boundary, action.purpose, action.micro_batch)
            if action and (action.kind is not Kind.RECV or message in arrived):
                able.append((s, action, message))
        assert able or sent, "deadlock"
        if able:
            s, action, message = random.choice(able)
            position[s] += 1
            if action.kind is Kind.SEND:
                sent.append(message)


@ALL
@given(case=cases())
@FEW
def test_boundaries_are_first_in_first_out(name, case):
    case, order = legal(name, case), defaultdict(list)
    for actions in lower(schedule(name).actions(*case), case[0]):
        for a in actions:
            if a.kind in (Kind.SEND, Kind.RECV):
                order[a.kind, a.boundary, a.purpose].append(a.micro_batch)
    for micro_batches in order.values():
        assert micro_batches == list(range(case[1]))


def most_in_flight(actions):
    """Micro-batches that have begun on a stage, in any of its chunks, and not ended in all."""
    ends = (Kind.B, Kind.W)
    left = Counter(a.micro_batch for a in actions if a.kind in ends)
    begun, most = set(), 0
    for a in actions:
        if a.kind is Kind.F:
            begun.add(a.micro_batch)
            most = max(most, len(begun))
        elif a.kind in ends:
            left[a.micro_batch] -= 1
            if not left[a.micro_batch]:
                begun.discard(a.micro_batch)
    return most


@ALL
@given(case=cases())
@FEW
def test_no_more_is_in_flight_than_it_tells(name, case):
    placed, micro_batches, warmup, _ = case = legal(name, case)
    for stage, actions in enumerate(schedule(name).actions(*case)):
        told = schedule(name).in_flight(micro_batches, warmup[stage])
        assert most_in_flight(actions) <= told
        if len(set(placed)) == len(placed) and not schedule(name).timed:
            assert most_in_flight(actions) == told


@given(case=cases(most_chunks=1))
def test_1f1b_runs_exactly_its_warmup_and_then_alternates(case):
    _, micro_batches, warmup, _ = case
    for stage, actions in enumerate(schedule("1f1b").actions(*case)):
        kinds = "".join(a.kind.value for a in actions if a.kind in (Kind.F, Kind.B))
        depth = min(warmup[stage], micro_batches)
        assert kinds == "F" * depth + "BF" * (micro_batches - depth) + "B" * depth


def test_a_warmup_that_grows_along_the_pipeline_is_refused():
    with pytest.raises(ScheduleError) as error:
        schedule("1f1b").actions((0, 1), 8, (1, 3))
    assert error.value.key == "stages[1].warmup"
    assert error.value.value == 3


@given(case=cases())
@FEW
def test_forwards_alone_are_each_forward_once_and_never_deadlock(case):
    placed, micro_batches, _, _ = case
    lowered = lower(forward_only(placed, micro_batches), placed)
    check(lowered)
    kinds = Counter(a.kind for actions in lowered for a in actions)
    crossing = sum(a != b for a, b in pairwise(placed))
    assert kinds == Counter(
        {Kind.F: len(placed) * micro_batches, Kind.SEND: crossing * micro_batches, Kind.RECV: crossing * micro_batches}
    )
    assert all(a.purpose in (None, "activation") for actions in lowered for a in actions)


@given(case=cases(), seed=st.integers(0, 2**32))
@FEW
def test_forwards_alone_need_room_for_one_message_at_a_boundary(case, seed):
    """A sender waits while its last message over the boundary has not been received."""
    placed, micro_batches, _, _ = case
    lowered = lower(forward_only(placed, micro_batches), placed)
    random = Random(seed)
    position, under_way = [0] * len(lowered), Counter()
    while any(position[s] < len(lowered[s]) for s in range(len(lowered))):
        able = []
        for s, actions in enumerate(lowered):
            action = actions[position[s]] if position[s] < len(actions) else None
            wanted = {Kind.SEND: 0, Kind.RECV: 1}
            if action and (action.kind not in wanted or under_way[action.boundary] == wanted[action.kind]):
                able.append((s, action))
        assert able, "deadlock"
        s, action = random.choice(able)
        position[s] += 1
        under_way[action.boundary] += (action.kind is Kind.SEND) - (action.kind is Kind.RECV)


def test_an_unknown_schedule_is_refused_with_a_suggestion():
    with pytest.raises(ScheduleError) as error:
        schedule("1f1")
    assert "1f1b" in error.value.remedy


class Split(Schedule):
    """GPipe whose backwards come in two halves."""

    name = "split"

    def compute(self, placed, micro_batches, warmup, ticks=None):
        lists = schedule("gpipe").compute(placed, micro_batches, warmup)
        apart = {Kind.F: (Kind.F,), Kind.B: (Kind.I, Kind.W)}
        return [[a._replace(kind=kind) for a in actions for kind in apart[a.kind]] for actions in lists]

    def in_flight(self, micro_batches, warmup):
        return micro_batches

    def period_s(self, times, warmup):
        return max(times.work_s)


def test_whoever_reads_a_list_refuses_what_he_does_not_know():
    with pytest.raises(ScheduleError, match=r"I0.*a reader knows F, B and no other"):
        refuse_unknown([Action(Kind.I, 0, 0)], (Kind.F, Kind.B), "a reader")
    with pytest.raises(ScheduleError, match=r"SEND0.*lowering knows"):
        lower([[Action(Kind.SEND, 0, 0, "activation")]], (0, 1))


def test_simulator_memory_model_and_grid_read_both_actions_of_a_backward(monkeypatch):
    """The second one begins when the first one is over, and frees what that has kept."""
    monkeypatch.setitem(registry._known(), "split", Split())
    chips, work, written = topology(pool("a", 1)), workload(2, batch=2), plan((2, [("a", 1, (0, 2))]))
    problem = Problem(chips, work, datasheet_times(chips, work))
    split, whole = (
        simulate(complete(written.model_copy(update={"schedule": name}), problem), problem)
        for name in ("split", "gpipe")
    )
    assert split.compute_s == pytest.approx(whole.compute_s)
    took = Counter()
    for action, start, end in split.spans[0, 0]:
        took[action.kind] += end - start
    assert took[Kind.W] == pytest.approx(0.8 * took[Kind.F])
    assert took[Kind.I] + took[Kind.W] == pytest.approx(2 * took[Kind.F])
    assert format_grid(lower(Split().actions((0,), 1, (1,)), (0,))) == "stage 0  F0 I0 W0"


@pytest.mark.parametrize("purpose", [None, "weights"])
def test_a_message_without_a_known_purpose_is_refused(purpose):
    refuse_unknown([Action(Kind.SEND, 0, 0, "gradient"), STEP], KINDS, "the executor")
    with pytest.raises(ScheduleError, match="the purpose of a message is activation or gradient"):
        refuse_unknown([Action(Kind.RECV, 0, 0, purpose)], KINDS, "the executor")


def test_check_finds_a_missing_message_a_wrong_order_and_a_deadlock():
    lowered = lower(schedule("1f1b").actions((0, 1), 4, (2, 1)), (0, 1))
    for kind in (Kind.SEND, Kind.RECV):
        without = [a for a in lowered[0] if not (a.kind is kind and a.micro_batch == 1)]
        with pytest.raises(ScheduleError, match="same order"):
            check([tuple(without), lowered[1]])
    swapped = tuple(a._replace(micro_batch={0: 1, 1: 0}.get(a.micro_batch, a.micro_batch)) for a in lowered[1])
    with pytest.raises(ScheduleError, match="same order"):
        check([lowered[0], swapped])
    backwards_first = tuple(sorted(lowered[0], key=lambda a: a.kind is not Kind.RECV))
    with pytest.raises(ScheduleError, match="deadlock"):
        check([backwards_first, lowered[1]])


@pytest.mark.parametrize("wrong", ["F I", "F W", "F I W W", "F W I", "F B W", "F B B", "F", "B F"])
def test_check_finds_a_backward_that_is_not_whole(wrong):
    whole = lower(Split().actions((0,), 2, (1,)), (0,))
    check(whole)
    computed = tuple(Action(Kind(kind), 0, 1) for kind in wrong.split())
    others = tuple(a for a in whole[0] if a.micro_batch != 1)
    with pytest.raises(ScheduleError, match=f"{wrong} of micro-batch 1 in chunk 0.*one backward after it"):
        check([computed + others])


def test_the_grid_shows_1f1b():
    grid = format_grid(lower(schedule("1f1b").actions((0, 1), 3, (2, 1)), (0, 1)))
    assert grid.splitlines() == [
        "stage 0  F0 F1 .  .  B0 -  F2 B1 -  .  B2 -",
        "stage 1  .  F0 B0 -  F1 B1 -  F2 B2 -",
    ]


def test_the_grid_of_many_stages_is_cut_off_and_says_so() -> None:
    stages = tuple(range(40))
    lines = format_grid(lower(schedule("1f1b").actions(stages, 2, (1,) * 40), stages)).splitlines()
    assert len(lines) == 17
    assert lines[-1] == "and 24 more stages"
