"""Fleets of fake ranks and fake endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.options import EmulateOptions
from hetero.cluster.fleet import FleetLink, FleetSpec, Hosting, Patience, Programs
from hetero.words.pool import Pool

ROOT = Path(__file__).parents[4]
FAKES = Programs("tests.unit.hetero.cluster.fake_endpoint", "tests.unit.hetero.cluster.fake_rank:main")
FOUND = Hosting(variables={"PYTHONPATH": str(ROOT)})


def pool(name: str, family: str, count: int, chips_per_host: int = 0) -> Pool:
    return Pool(name, family, "any", count, chips_per_host, EmulateOptions())


def fleet(*pools: Pool, hosting: Hosting = FOUND, programs: Programs = FAKES, **more: Any) -> FleetSpec:
    """All pools are hosted alike."""
    return FleetSpec(pools, hosting={pool.name: hosting for pool in pools}, programs=programs, **more)


def three_families(**patience: float) -> FleetSpec:
    """Four hosts, seven ranks, one link over gRPC."""
    pools = (pool("nvidia", "cuda", 2), pool("ascend", "ascend", 4, chips_per_host=2), pool("kunlun", "kunlun", 1))
    links = (FleetLink(("nvidia", "ascend"), "grpc", bytes_per_s=1e9, delay_s=0.001, streams=1),)
    return fleet(*pools, links=links, patience=Patience(**patience))


def two_hosts(**patience: float) -> FleetSpec:
    """Of one pool, with two ranks each."""
    return fleet(pool("ascend", "ascend", 4, chips_per_host=2), patience=Patience(**patience))


def big_fleet(hosts: int, chips_per_host: int) -> FleetSpec:
    """Two pools with `hosts` hosts in all."""
    count = hosts // 2 * chips_per_host
    names = (("nvidia", "cuda"), ("ascend", "ascend"))
    return FleetSpec(tuple(Pool(name, family, "any", count, chips_per_host) for name, family in names))
