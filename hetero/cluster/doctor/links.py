"""What the links of a fleet can do, measured on its hosts, without training anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hetero.cluster.fleet import FleetSpec
from hetero.cluster.onray.standing import standing


def probe(fleet: FleetSpec, address: str | None) -> list[dict[str, Any]]:
    """Starts the hosts, on a Ray of its own or on the cluster at `address`, and measures each direction between each
    two pools, as it is and not as emulation would pace it. See Session.probe."""
    bare = replace(fleet, links=tuple(replace(link, bytes_per_s=None, delay_s=0.0) for link in fleet.links))
    with standing(bare, address) as session:
        return session.probe()
