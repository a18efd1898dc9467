"""Fleets of fake ranks and fake endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hetero.cluster.fleet import FleetLink, FleetPool, FleetSpec, Patience, Programs

ROOT = Path(__file__).parents[4]
FAKES = Programs("tests.unit.hetero.cluster.fake_endpoint", "tests.unit.hetero.cluster.fake_rank:main")


def pool(name: str, family: str, count: int, chips_per_host: int = 0, **more: Any) -> FleetPool:
    variables = {"PYTHONPATH": str(ROOT), **more.pop("variables", {})}
    return FleetPool(name, family, "any", count, chips_per_host, emulate={}, variables=variables, **more)


def three_families(**patience: float) -> FleetSpec:
    """Four hosts, seven ranks, one link over gRPC."""
    pools = (pool("nvidia", "cuda", 2), pool("ascend", "ascend", 4, chips_per_host=2), pool("kunlun", "kunlun", 1))
    links = (FleetLink(("nvidia", "ascend"), "grpc", bytes_per_s=1e9, delay_s=0.001, streams=1),)
    return FleetSpec(pools, links, programs=FAKES, patience=Patience(**patience))


def two_hosts(**patience: float) -> FleetSpec:
    """Of one pool, with two ranks each."""
    return FleetSpec((pool("ascend", "ascend", 4, chips_per_host=2),), programs=FAKES, patience=Patience(**patience))


def big_fleet(hosts: int, chips_per_host: int) -> FleetSpec:
    """Two pools with `hosts` hosts in all."""
    count = hosts // 2 * chips_per_host
    names = (("nvidia", "cuda"), ("ascend", "ascend"))
    return FleetSpec(tuple(FleetPool(name, family, "any", count, chips_per_host) for name, family in names))
