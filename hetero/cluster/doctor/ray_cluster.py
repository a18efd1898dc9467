"""A Ray cluster as a run would find it: whether it answers, and what its nodes hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from hetero.cluster.doctor.finding import Finding, judged
from hetero.cluster.doctor.guard import of_joined, of_server
from hetero.cluster.placement import Node

OWN = "none asked"


def ask(address: str) -> tuple[list[Finding], list[Node] | None]:
    """What there is to say of the cluster at HOST:PORT, or behind the job server at http://HEAD:8265, and its nodes;
    None if it does not answer. Imports Ray, which takes seconds."""
    from hetero.cluster.errors import ClusterError

    try:
        version, found, guards = _by_job_server(address) if "://" in address else _by_joining(address)
    except ClusterError as error:
        return [Finding.of(error, "Ray")], None
    return [answered(address, *version), *guards, *nodes(found)], found


def not_asked() -> Finding:
    return Finding("ok", "Ray", OWN, "hetero train starts its own; --address asks a cluster")


def told_of(variables: Iterable[str]) -> list[Finding]:
    """What the environment says of Ray, if anything; names alone, since one of them is a password."""
    names = sorted(name for name in variables if name.startswith("RAY_"))
    rule = "hold where a cluster is meant; a Ray that hetero starts heeds none in capitals"
    return [Finding("ok", "variables for Ray", ", ".join(names), rule)] if names else []


def answered(address: str, theirs: str, ours: str) -> Finding:
    remedy = f"pip install 'ray[default]=={theirs}' here, or the version of here there"
    return judged("Ray", f"{theirs} at {address}", f"the version of this host, {ours}", remedy, warning=theirs != ours)


def nodes(found: Sequence[Node]) -> list[Finding]:
    """One finding per node: what it can give, and how it is labelled."""
    return [Finding("ok", f"node {node.name}", _held(node)) for node in found]


def _held(node: Node) -> str:
    """Without the names that Ray gives to each node, and its own labels."""
    held = {"memory": 2.0**30, "object_store_memory": 2.0**30}
    resources = [
        f"{name} {amount / held.get(name, 1.0):.4g}{' GiB' * (name in held)}"
        for name, amount in sorted(node.resources.items())
        if not name.startswith(("node:", "accelerator_type:"))
    ]
    labels = [f"{key}={label}" for key, label in sorted(node.labels.items()) if not key.startswith("ray.io/")]
    return ", ".join(resources) + (f"; labelled {', '.join(labels)}" if labels else "")


Told: TypeAlias = tuple[tuple[str, str], list[Node], list[Finding]]
"""The versions of there and here, the nodes, and what guards them."""


def _by_job_server(address: str) -> Told:
    from hetero.cluster.jobs.jobs import JobServer

    server = JobServer(address)
    return server.ray_versions(), server.nodes(), of_server(server)


def _by_joining(address: str) -> Told:
    """As a driver does; Ray refuses one of another version by itself."""
    import ray

    from hetero.cluster.onray.reservation import nodes as joined_nodes
    from hetero.cluster.onray.runtime import ray_runtime

    with ray_runtime(address):
        return (ray.__version__, ray.__version__), joined_nodes(), of_joined()
