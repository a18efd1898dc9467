"""What the chips of a cluster's hosts say of themselves, before a run is planned over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from backends import probe
from backends.probe import Detection
from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import FleetSpec
from hetero.cluster.onray.reservation import reserved
from hetero.cluster.onray.runtime import ray_runtime
from hetero.cluster.options import PoolOptions, fleet_of
from hetero.monitoring.notice import Notice

SLOWEST_S = 300.0


def ask_joined(
    pools: Mapping[str, PoolOptions], address: str, on_event: Callable[[Notice], None] = lambda notice: None
) -> dict[str, Detection]:
    """The same of the cluster at `address`, which is joined for so long."""
    with ray_runtime(address):
        return ask_cluster(fleet_of(pools, local=False), on_event)


def ask_cluster(fleet: FleetSpec, on_event: Callable[[Notice], None]) -> dict[str, Detection]:
    """By pool, what all its hosts find together. Ray must be up. Waits while others use the places that a run would
    take, and takes none after it returns. Raises PlacementError, and ClusterError where a host does not answer."""
    with reserved(fleet, on_event) as reservation:
        task: Any = ray.remote(max_retries=0)(probe.ask)
        asked = {
            host.id: task.options(**reservation.options(host.id)).remote(
                host.pool.family, host.hosting.python, dict(host.hosting.variables)
            )
            for host in fleet.hosts
        }
        try:
            answers = dict(zip(asked, ray.get(list(asked.values()), timeout=SLOWEST_S), strict=True))
        except RayError as error:
            rule = f"the hosts do not say which chips they have: {str(error).splitlines()[0]}"
            raise ClusterError("pools", sorted(asked), rule, "name each pool's chip") from error
    return {pool.name: together(answers[host.id] for host in fleet.hosts if host.pool is pool) for pool in fleet.pools}


def together(found: Iterable[Detection]) -> Detection:
    """Of several hosts; none has chips where one has none."""
    answers = list(found)
    if lacking := next((one for one in answers if not one.chips), None):
        return lacking
    names = tuple(dict.fromkeys(name for one in answers for name in one.names))
    return replace(answers[0], chips=sum(one.chips for one in answers), names=names)
