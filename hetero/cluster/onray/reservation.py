"""A place on a Ray cluster for every host of a fleet, all of them or none, for as long as a run needs them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hetero.cluster.fleet import FleetSpec
from hetero.cluster.placement import Ask, Node, PlacementError, asks_of, place, wanted
from hetero.interrupts import check
from hetero.monitoring.notice import Notice

AT_ONCE_S = 2.0
LOOK_AGAIN_S = 10.0
GIVE_BACK_S = 5.0
WAIT_S = 1.0  # Ray counts whole ones


@dataclass(frozen=True)
class Reservation:
    """`bundles` says which bundle of the group is which host's, and what of its node that holds."""

    group: PlacementGroup
    bundles: Mapping[str, tuple[int, Mapping[str, float]]]

    def options(self, host: str) -> dict[str, Any]:
        """The options of an actor that takes the host's whole place."""
        index, resources = self.bundles[host]
        named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
        own = {option: resources[name] for name, option in named.items() if name in resources}
        return {
            "num_cpus": 0,
            **own,
            "resources": {name: amount for name, amount in resources.items() if name not in named},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, index),
        }


@contextlib.contextmanager
def reserved(fleet: FleetSpec, on_event: Callable[[Notice], None]) -> Iterator[Reservation]:
    """Waits, and says so, while others use what is needed. Raises PlacementError where waiting would not help."""
    asks = asks_of(fleet)
    place(asks, nodes())
    group = placement_group(
        [dict(ask.resources) for ask in asks],
        strategy="PACK",
        bundle_label_selector=[dict(ask.labels) for ask in asks],
    )
    try:
        if not group.wait(AT_ONCE_S):
            _queue(asks, group, on_event)
        yield Reservation(group, {ask.host: (index, ask.resources) for index, ask in enumerate(asks)})
    finally:
        _give_back(group)


def _give_back(group: PlacementGroup) -> None:
    """Does not wait for a control store that is gone: Ray itself gives back what a driver had that has ended."""
    giving = threading.Thread(target=remove_placement_group, args=(group,), name="give back", daemon=True)
    giving.start()
    giving.join(GIVE_BACK_S)


def nodes(*, free: bool = False) -> list[Node]:
    """The cluster's living nodes, with all their resources or with those that nobody uses now."""
    available = available_resources_per_node() if free else {}
    return [
        Node(
            node["NodeID"],
            _name(node),
            node["Labels"],
            available.get(node["NodeID"], {}) if free else node["Resources"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _name(node: Mapping[str, Any]) -> str:
    """What people call it; a Ray node is named after its address unless it was given a name."""
    named, address = node.get("NodeName"), node["NodeManagerAddress"]
    return f"{named if named and named != address else node['NodeManagerHostname']} ({address})"


def _queue(asks: tuple[Ask, ...], group: PlacementGroup, on_event: Callable[[Notice], None]) -> None:
    on_event(Notice("queued", {"waits for": _missing(asks)}, 0, 0))
    look_again = time.monotonic() + LOOK_AGAIN_S
    while not group.wait(WAIT_S):
        check()
        if time.monotonic() >= look_again:
            place(asks, nodes())  # what was possible may have left the cluster
            look_again = time.monotonic() + LOOK_AGAIN_S
    on_event(Notice("placed", step=0, epoch=0))


def _missing(asks: tuple[Ask, ...]) -> str:
    """The first host that finds no place among what is free now, in words."""
    for count in range(1, len(asks) + 1):
        try:
            place(asks[:count], nodes(free=True))
        except PlacementError:
            return f"{asks[count - 1].host}: {wanted(asks[count - 1])}"
    return "Ray"
