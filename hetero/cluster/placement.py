"""Which node of a cluster serves which host of a fleet: decided before anything starts, or refused with the reasons.

Pure: nodes and asks in, an assignment or one error out. Ray then reserves what was found to be possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import FleetSpec, HostSpec
from hetero.words.pool import Pool

AGENT = {"CPU": 0.01}
"""What an agent takes whose pool takes nothing; Ray reserves no empty place."""
MOST_NODES_SHOWN = 12


class PlacementError(ClusterError):
    """The cluster has no place for a pool."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, with the labels and resources that Ray knows of it."""

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """What one host of the fleet needs of a node."""

    host: str
    pool: Pool
    labels: Mapping[str, str]
    resources: Mapping[str, float]

    @property
    def size(self) -> float:
        return sum(self.resources.values())


def asks_of(fleet: FleetSpec) -> tuple[Ask, ...]:
    """One for each host, in the fleet's order."""
    return tuple(map(_ask_of, fleet.hosts))


def _ask_of(host: HostSpec) -> Ask:
    resources = {name: each * len(host.ranks) for name, each in host.hosting.resources.items()}
    return Ask(host.id, host.pool, host.hosting.labels, resources or AGENT)


def place(asks: Iterable[Ask], nodes: Sequence[Node]) -> dict[str, str]:
    """The node's id for each host. Whoever has the least choice goes first, the largest of them before the others, and
    each takes the node that it leaves the least room on. Raises PlacementError."""
    free = {node.id: dict(node.resources) for node in nodes}
    taken: dict[str, list[Ask]] = {node.id: [] for node in nodes}
    found: dict[str, str] = {}
    for ask in sorted(asks, key=lambda ask: (sum(_lack(ask, node) is None for node in nodes), -ask.size)):
        fitting = [node for node in nodes if _lack(ask, node, free[node.id]) is None]
        if not fitting:
            raise _refusal(ask, nodes, free, taken)
        best = min(fitting, key=lambda node: sum(free[node.id].get(name, 0.0) for name in ask.resources)).id
        for name, amount in ask.resources.items():
            free[best][name] -= amount
        taken[best].append(ask)
        found[ask.host] = best
    return found


def label_fits(rule: str, label: str | None) -> bool:
    """Whether a node's label is what `value`, `!value`, `in(a, b)` or `!in(a, b)` asks for."""
    wanted = rule.removeprefix("!")
    choices = wanted[3:-1].split(",") if wanted.startswith("in(") else [wanted]
    return (label in [choice.strip() for choice in choices]) != rule.startswith("!")


def _lack(ask: Ask, node: Node, free: Mapping[str, float] | None = None) -> str | None:
    """Why the node cannot serve the host; None if it can."""
    for key, rule in ask.labels.items():
        label = node.labels.get(key)
        if not label_fits(rule, label):
            return f"its label {key} is {label!r}, not {rule}" if label is not None else f"has no label {key}"
    for name, amount in ask.resources.items():
        there = node.resources.get(name, 0.0)
        if there < amount:
            return f"has {there:g} {name}, not {amount:g}" if there else f"has no {name}"
        if free is not None and free.get(name, 0.0) < amount - 1e-9:
            return f"has {there:g} {name}, of which {max(free.get(name, 0.0), 0.0):g} are left"
    return None


def _refusal(
    ask: Ask, nodes: Sequence[Node], free: Mapping[str, Mapping[str, float]], taken: Mapping[str, Sequence[Ask]]
) -> PlacementError:
    pool = ask.pool
    lacks = [_lacking(ask, node, free[node.id], taken[node.id]) for node in nodes[:MOST_NODES_SHOWN]]
    if len(nodes) > MOST_NODES_SHOWN:
        lacks.append(f"and {len(nodes) - MOST_NODES_SHOWN} more nodes")
    rule = "\n  ".join([f"host {ask.host} fits on none of the cluster's {len(nodes)} nodes", *lacks])
    remedy = f"add such a node, loosen pools.{pool.name}.select, or lower count or chips_per_host"
    return PlacementError(f"pools.{pool.name}.select", wanted(ask), rule, remedy)


def wanted(ask: Ask) -> str:
    """What is asked of the hosts of a pool, in words."""
    hosts = len(ask.pool.ranks_by_host())
    resources = ", ".join(f"{name} {amount:g}" for name, amount in ask.resources.items())
    labels = ", ".join(f"{key} {rule}" for key, rule in ask.labels.items())
    return f"{hosts} host{'s' * (hosts > 1)} with {resources}{' each' * (hosts > 1)}{labels and f', labelled {labels}'}"


def _lacking(ask: Ask, node: Node, free: Mapping[str, float], taken: Sequence[Ask]) -> str:
    lack = _lack(ask, node, free)
    by = f", after {', '.join(other.host for other in taken)}" if taken and "are left" in str(lack) else ""
    return f"{node.name}: {lack}{by}"
