"""What the links of a fleet can do, measured on its hosts, without training anything."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from hetero.cluster.fleet import FleetSpec
from hetero.cluster.onray.actors import ray_agents
from hetero.cluster.onray.runtime import ray_runtime
from hetero.cluster.onray.shared_files import Needs
from hetero.cluster.session import Session
from hetero.interrupts import held, listening


def probe(fleet: FleetSpec, address: str | None) -> list[dict[str, Any]]:
    """Starts the hosts, on a Ray of its own or on the cluster at `address`, and measures each direction between each
    two pools, as it is and not as emulation would pace it. See Session.probe."""
    bare = replace(fleet, links=tuple(replace(link, bytes_per_s=None, delay_s=0.0) for link in fleet.links))
    with listening(), held(), ExitStack() as stack:
        stack.enter_context(ray_runtime(address))
        agents = stack.enter_context(ray_agents(bare, Needs(), lambda notice: None))
        return stack.enter_context(Session.start(bare, agents)).probe()
