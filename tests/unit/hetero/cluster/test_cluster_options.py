"""Pools of the job file, and the fleet that they make."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from backends.options import EmulateOptions
from bridge.rank import RankId
from hetero.cluster.fleet import FleetLink
from hetero.cluster.options import PoolOptions, fleet_of
from hetero.words.pool import Pool


def test_a_pool_s_chips_are_cut_into_hosts() -> None:
    pools = {
        "nvidia": PoolOptions(family="cuda", chip="A800-80G", count=10, chips_per_host=4),
        "ascend": PoolOptions(family="ascend", chip="Ascend-910B2", count=2, emulate={"speed": 0.9}),
    }
    fleet = fleet_of(pools, [FleetLink(("ascend", "nvidia"), "grpc")])
    assert {host.id: len(host.ranks) for host in fleet.hosts} == {
        "nvidia@0": 4, "nvidia@1": 4, "nvidia@2": 2, "ascend@0": 2,
    }  # fmt: skip
    assert fleet.hosts[2].ranks == (RankId("nvidia", 8), RankId("nvidia", 9))
    assert fleet.hosts[0].schemes == ("grpc", "shm", "zmq")  # one for the other pool, one among its own hosts
    assert fleet.link("nvidia", "ascend").scheme == "grpc"
    assert fleet.pools == (
        Pool("nvidia", "cuda", "A800-80G", 10, 4),
        Pool("ascend", "ascend", "Ascend-910B2", 2, emulate=EmulateOptions(speed=0.9)),
    )


def test_hosts_of_a_cluster_ask_their_node_for_an_address() -> None:
    pools = {"cpu": PoolOptions(family="cpu", chip="cpu", count=1)}
    assert fleet_of(pools).hosts[0].address == "127.0.0.1"
    assert fleet_of(pools, local=False).hosts[0].address is None


@pytest.mark.parametrize("wrong", [{"count": 0}, {"tp": "many"}, {"tp": 0}, {"colour": "red"}])
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        PoolOptions.model_validate({"family": "cuda", "chip": "A800-80G", "count": 1, **wrong})
