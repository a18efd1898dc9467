"""Hosts of a fleet on the nodes of a cluster: found where there is a place, refused with every reason where not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hetero.cluster.fleet import FleetSpec, Hosting
from hetero.cluster.options import PoolOptions, fleet_of
from hetero.cluster.placement import Node, PlacementError, asks_of, label_fits, place
from hetero.errors import is_user_mistake, render
from hetero.words.pool import Pool

NODES = [
    Node("n0", "head", {"chip": "none"}, {"CPU": 8}),
    Node("n1", "alpha", {"chip": "cuda"}, {"CPU": 8, "GPU": 8}),
    Node("n2", "beta", {"chip": "ascend"}, {"CPU": 8, "NPU": 8}),
    Node("n3", "gamma", {"chip": "kunlun"}, {"CPU": 8, "KUNLUN": 8}),
    Node("n4", "delta", {"chip": "kunlun"}, {"CPU": 8, "KUNLUN": 8}),
]
CHIPS = {"cuda": "A800-80G", "ascend": "Ascend-910B2", "kunlun": "Kunlun-P800"}


def pool(family: str, count: int, **more: Any) -> PoolOptions:
    return PoolOptions(family=family, chip=CHIPS[family], count=count, **more)


def placed(**pools: PoolOptions) -> dict[str, str]:
    return place(asks_of(fleet_of(pools, local=False)), NODES)


def test_chips_go_where_their_family_s_resource_is() -> None:
    pools = {"a": pool("cuda", 8), "b": pool("ascend", 4), "c": pool("kunlun", 16, chips_per_host=8)}
    assert placed(**pools) == {"a@0": "n1", "b@0": "n2", "c@0": "n3", "c@1": "n4"}


def test_parts_of_a_host_share_it() -> None:
    pools = {"a": pool("kunlun", 4), "b": pool("kunlun", 8, chips_per_host=4), "c": pool("kunlun", 4)}
    nodes = sorted(placed(**pools).values())
    assert nodes == ["n3", "n3", "n4", "n4"]


def test_labels_decide_for_emulated_chips_which_take_nothing() -> None:
    pools = {"a": pool("cuda", 64, emulate={}, select={"labels": {"chip": "in(none, ascend)"}})}
    assert placed(**pools)["a@0"] in ("n0", "n2")
    assert placed(a=pool("cuda", 1, emulate={}, select={"labels": {"chip": "!in(none,ascend,cuda)"}}))["a@0"] in "n3n4"


def test_who_can_go_anywhere_leaves_room_for_who_cannot() -> None:
    anywhere = pool("kunlun", 8)
    bound = pool("kunlun", 8, select={"labels": {"chip": "kunlun"}, "resources": {"KUNLUN": 1}})
    assert len(set(placed(anywhere=anywhere, bound=bound).values())) == 2


def test_a_refusal_says_what_is_asked_and_which_node_lacks_what() -> None:
    with pytest.raises(PlacementError) as caught:
        placed(first=pool("kunlun", 8), big=pool("kunlun", 12, chips_per_host=6, select={"labels": {"chip": "kunlun"}}))
    screen = render(caught.value)
    assert is_user_mistake(caught.value)
    for part in (
        "pools.big.select",
        "2 hosts with KUNLUN 6 each, labelled chip kunlun",
        "alpha: its label chip is 'cuda', not kunlun",
        "has 8 KUNLUN, of which 0 are left, after first@0",
        "has 8 KUNLUN, of which 2 are left, after big@",
    ):
        assert part in screen, screen


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"select": {"resources": {"XPU": 1}}}, "head: has no XPU"),
        ({"select": {"labels": {"zone": "a"}}}, "head: has no label zone"),
        ({"select": {"resources": {"KUNLUN": 4}}}, "gamma: has 8 KUNLUN, not 16"),
    ],
)
def test_each_kind_of_lack_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PlacementError, match=said):
        placed(k=pool("kunlun", 4, **options))


def test_a_long_list_of_nodes_is_cut() -> None:
    many = [Node(str(n), f"node{n}", {}, {"CPU": 1}) for n in range(500)]
    with pytest.raises(PlacementError, match="and 488 more nodes"):
        place(asks_of(fleet_of({"a": pool("cuda", 1)}, local=False)), many)


@pytest.mark.parametrize(
    ("rule", "label", "fits"),
    [
        ("a", "a", True), ("a", "b", False), ("a", None, False), ("!a", None, True), ("!a", "a", False),
        ("in(a, b)", "b", True), ("in(a,b)", "c", False), ("!in(a,b)", "a", False), ("!in(a,b)", None, True),
    ],
)  # fmt: skip
def test_label_rules(rule: str, label: str | None, fits: bool) -> None:
    assert label_fits(rule, label) is fits


@pytest.mark.parametrize("select", [{"labels": {"chip": "in(a"}}, {"resources": {"GPU": 0}}, {"label": {}}])
def test_nonsense_in_select_is_refused(select: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        pool("cuda", 1, select=select)


@pytest.mark.parametrize("word", ["zone", "", " ", " zone "])
def test_a_long_list_of_choices_is_read_at_once(word: str) -> None:
    choices = f"in({','.join([word] * 40)}"
    pool("cuda", 1, select={"labels": {"zone": f"{choices})"}})
    with pytest.raises(ValidationError, match="what a label must be"):
        pool("cuda", 1, select={"labels": {"zone": choices}})


@pytest.mark.parametrize("rule", ["", "!", "a.b_c-d", "in()", "in( a )", "!in(a , b,c)", "in(a,)"])
def test_what_a_label_may_have_to_be(rule: str) -> None:
    pool("cuda", 1, select={"labels": {"example.com/zone": rule}})


@pytest.mark.parametrize("rule", ["a ", " a", "!!a", "in(a b)", "in(a", "in a)", "in(a))", "in(a)\n", "a/b", "a,b"])
def test_what_no_label_can_be_is_refused(rule: str) -> None:
    with pytest.raises(ValidationError, match="what a label must be"):
        pool("cuda", 1, select={"labels": {"zone": rule}})


sizes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8)), min_size=1, max_size=5)


@given(sizes, st.lists(st.integers(0, 8), min_size=1, max_size=6))
def test_no_node_is_ever_overfull(pools: list[tuple[int, int]], capacities: list[int]) -> None:
    each_has = [Pool(f"p{n}", "cuda", "any", hosts * each, each) for n, (hosts, each) in enumerate(pools)]
    fleet = FleetSpec(tuple(each_has), hosting={pool.name: Hosting(resources={"GPU": 1.0}) for pool in each_has})
    nodes = [Node(str(n), str(n), {}, {"GPU": float(size)}) for n, size in enumerate(capacities)]
    asks = asks_of(fleet)
    try:
        found = place(asks, nodes)
    except PlacementError:
        return
    assert set(found) == {host.id for host in fleet.hosts}
    for node in nodes:
        used = sum(ask.resources["GPU"] for ask in asks if found[ask.host] == node.id)
        assert used <= node.resources["GPU"]
