"""What goes where when a plan takes over from another, carried out on numpy arrays, whatever the layouts of both."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.layout.layout import Region
from bridge.rank import RankId
from hetero.engine.state.ownership import Holder, Holding
from hetero.engine.state.routes import PARAMETER, VALUE, Key, Side, Transfer, rounds
from hetero.engine.state.state import owned_by, places_of
from tests.examples import out_of_100
from tests.unit.hetero.engine.placements import SHAPES, placements, ranks

EVERYONE = [*ranks("a", 4), *ranks("b", 4)]
MOMENT = "exp_avg"
Arrays = dict[Key, np.ndarray]


@st.composite
def sides(
    draw: st.DrawFn, names: Sequence[tuple[int, ...]], precisions: dict[str, str], trains: Sequence[bool]
) -> Side:
    """Tensors of these shapes, each held by one stage or by one of each pool."""
    pools = draw(st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "a")]))
    tensors = []
    for unit, shape in enumerate(names):
        holders = tuple(Holder(p, 0, frozenset({0}), draw(placements(shape, pool))) for p, pool in enumerate(pools))
        tensors.append(Holding(f"t{unit}", unit, holders, draw(st.integers(0, len(pools) - 1)), trains[unit]))
    return Side(tensors, precisions, (MOMENT,))


@st.composite
def moves(draw: st.DrawFn) -> tuple[Side, Side]:
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2))
    precisions = {pool: draw(st.sampled_from(["float32", "bfloat16"])) for pool in "ab"}
    trains = [draw(st.booleans()) for _ in shapes]
    return draw(sides(shapes, precisions, trains)), draw(sides(shapes, precisions, trains))


@given(moves())
@out_of_100(40)
def test_every_rank_comes_to_all_that_the_other_plan_gives_it(move: tuple[Side, Side]) -> None:
    before, after = move
    old = {me: held(before, me) for me in EVERYONE}
    new = {me: held(after, me, old[me], before) for me in EVERYONE}
    first, second = rounds(before, after)
    carry(first, old, new)
    for arrays in new.values():
        for key, array in arrays.items():
            if key.kind == VALUE and (array < 0).all() and key._replace(kind=PARAMETER) in arrays:
                array[...] = arrays[key._replace(kind=PARAMETER)]
    carry(second, new, new)
    for me in EVERYONE:
        for key, wanted in held(after, me).items():
            np.testing.assert_array_equal(new[me][key], wanted)


@given(moves())
@out_of_100(30)
def test_a_rank_has_a_place_for_what_it_holds_and_for_nothing_else(move: tuple[Side, Side]) -> None:
    side, _ = move
    for me in EVERYONE:
        kinds = {key for key in side.shards(me) if key.kind != VALUE}
        places, owned = places_of(side.tensors, me), owned_by(side.tensors, me)
        assert {key.name for key in kinds} <= places.keys()
        assert {key.name for key in kinds if key.kind == MOMENT} == set(owned)
        for layout, position in places.values():
            assert layout.regions[position] is not None


def held(side: Side, me: RankId, old: Arrays | None = None, before: Side | None = None) -> Arrays:
    """A rank's arrays: the truth, or what it keeps of `old` and otherwise nothing yet."""
    shapes = {holding.name: holding.owners.layout.shape for holding in side.tensors}
    had = before.shards(me) if before else {}
    found = {}
    for key, shard in side.shards(me).items():
        truth = np.arange(prod(shapes[key.name])).reshape(shapes[key.name])[cut(shard.region)].copy()
        fresh = np.full_like(truth, -1)
        found[key] = truth if old is None else old[key] if had.get(key) == shard else fresh
    return found


def carry(transfers: Sequence[Transfer], sources: dict[RankId, Arrays], targets: dict[RankId, Arrays]) -> None:
    for key, _, piece in transfers:
        of_source, target = sources[piece.source], targets[piece.target][key]
        kinds = (key.kind, PARAMETER, VALUE)  # the last of what is frozen where nobody computes with it in float32
        source = next(of_source[one] for kind in kinds if (one := key._replace(kind=kind)) in of_source)
        if source is target:
            continue
        into = target[cut(piece.target_slices)]
        assert (into == -1).all(), "it was there already"
        into[...] = source[cut(piece.source_slices)]


def cut(region: Region) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in region)
