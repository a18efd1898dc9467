"""One suite for every schedule in the registry."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.action import STEP, Action, Kind
from balancer.errors import ScheduleError
from balancer.replay import check, format_grid
from balancer.schedule import SCHEDULES, forward_only, lower, schedules

ALL = pytest.mark.parametrize("name", sorted(SCHEDULES))


@st.composite
def cases(draw, most_chunks=3):
    """(stage of each chunk, micro-batches, warm-ups): plain, interleaved, V-shaped and arbitrary placements."""
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
    return tuple(placed), micro_batches, tuple(warmup)


@ALL
@given(case=cases())
def test_every_action_happens_once_and_in_its_place(name, case):
    placed, micro_batches, _ = case
    lists = schedules(name)(*case)
    once = Counter(a for actions in lists for a in actions if a.kind in (Kind.F, Kind.B))
    assert once == Counter(
        Action(kind, c, m) for kind in (Kind.F, Kind.B) for c in range(len(placed)) for m in range(micro_batches)
    )
    for stage, actions in enumerate(lists):
        assert all(placed[a.chunk] == stage for a in actions if a is not STEP)
        at = {a: i for i, a in enumerate(actions)}
        for chunk in (c for c, s in enumerate(placed) if s == stage):
            last = max(at[Action(Kind.B, chunk, m)] for m in range(micro_batches))
            assert all(at[Action(Kind.F, chunk, m)] < at[Action(Kind.B, chunk, m)] for m in range(micro_batches))
            assert actions[last + 1] == Action(Kind.SYNC, chunk, -1)
        assert actions[-1] == STEP
        assert Counter(a.kind for a in actions)[Kind.SYNC] == placed.count(stage)


@ALL
@given(case=cases())
@settings(deadline=None)
def test_lowered_lists_agree_and_never_deadlock(name, case):
    lowered = lower(schedules(name)(*case), case[0])
    check(lowered)
    crossing = sum(a != b for a, b in zip(case[0], case[0][1:], strict=False))
    assert sum(a.kind is Kind.SEND for actions in lowered for a in actions) == 2 * crossing * case[1]


@ALL
@given(case=cases(), data=st.data())
@settings(deadline=None)
def test_runs_to_its_end_under_any_times(name, case, data):
    """Execute the lists in a random interleaving, each stage one action at a time, messages arriving whenever."""
    lowered = lower(schedules(name)(*case), case[0])
    random = data.draw(st.randoms(use_true_random=False))
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
@settings(deadline=None)
def test_boundaries_are_first_in_first_out(name, case):
    order = defaultdict(list)
    for actions in lower(schedules(name)(*case), case[0]):
        for a in actions:
            if a.kind in (Kind.SEND, Kind.RECV):
                order[a.kind, a.boundary, a.purpose].append(a.micro_batch)
    for micro_batches in order.values():
        assert micro_batches == list(range(case[1]))


def in_flight(actions, chunk):
    """Per action: forwards of the chunk begun whose backward is not done."""
    now = 0
    for a in actions:
        now += (a.kind is Kind.F and a.chunk == chunk) - (a.kind is Kind.B and a.chunk == chunk)
        yield now


@given(case=cases())
@settings(deadline=None)
def test_1f1b_bounds_what_is_in_flight(case):
    placed, _, warmup = case
    for stage, actions in enumerate(schedules("1f1b")(*case)):
        assert max(in_flight(actions, placed.index(stage))) <= warmup[stage]


@given(case=cases(most_chunks=1))
def test_1f1b_runs_exactly_its_warmup_and_then_alternates(case):
    _, micro_batches, warmup = case
    for stage, actions in enumerate(schedules("1f1b")(*case)):
        kinds = "".join(a.kind.value for a in actions if a.kind in (Kind.F, Kind.B))
        depth = min(warmup[stage], micro_batches)
        assert kinds == "F" * depth + "BF" * (micro_batches - depth) + "B" * depth


def test_a_warmup_that_grows_along_the_pipeline_is_refused():
    with pytest.raises(ScheduleError) as error:
        schedules("1f1b")((0, 1), 8, (1, 3))
    assert error.value.key == "stages[1].warmup"
    assert error.value.value == 3


@given(case=cases())
@settings(deadline=None)
def test_forwards_alone_are_each_forward_once_and_never_deadlock(case):
    placed, micro_batches, _ = case
    lowered = lower(forward_only(placed, micro_batches), placed)
    check(lowered)
    kinds = Counter(a.kind for actions in lowered for a in actions)
    crossing = sum(a != b for a, b in pairwise(placed))
    assert kinds == Counter(
        {Kind.F: len(placed) * micro_batches, Kind.SEND: crossing * micro_batches, Kind.RECV: crossing * micro_batches}
    )
    assert all(a.purpose in (None, "activation") for actions in lowered for a in actions)


@given(case=cases(), data=st.data())
@settings(deadline=None)
def test_forwards_alone_need_room_for_one_message_at_a_boundary(case, data):
    """A sender waits while its last message over the boundary has not been received."""
    placed, micro_batches, _ = case
    lowered = lower(forward_only(placed, micro_batches), placed)
    random = data.draw(st.randoms(use_true_random=False))
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
        schedules("1f1")
    assert "1f1b" in error.value.remedy


def test_check_finds_a_missing_message_a_wrong_order_and_a_deadlock():
    lowered = lower(schedules("1f1b")((0, 1), 4, (2, 1)), (0, 1))
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


def test_the_grid_shows_1f1b():
    grid = format_grid(lower(schedules("1f1b")((0, 1), 3, (2, 1)), (0, 1)))
    assert grid.splitlines() == [
        "stage 0  F0 F1 .  .  B0 -  F2 B1 -  .  B2 -",
        "stage 1  .  F0 B0 -  F1 B1 -  F2 B2 -",
    ]


def test_the_grid_of_many_stages_is_cut_off_and_says_so() -> None:
    stages = tuple(range(40))
    lines = format_grid(lower(schedules("1f1b")(stages, 2, (1,) * 40), stages)).splitlines()
    assert len(lines) == 17
    assert lines[-1] == "and 24 more stages"
