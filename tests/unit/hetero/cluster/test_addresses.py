"""Addresses that a run cannot join are answered at once, with what to do instead."""

from __future__ import annotations

import socket

import pytest

from hetero.cluster.errors import ClusterError
from hetero.cluster.onray import runtime


def refusal(address: str) -> ClusterError:
    with pytest.raises(ClusterError) as caught, runtime.ray_runtime(address):
        raise AssertionError("joined")
    assert caught.value.key == "--address"
    return caught.value


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_the_address_of_another_service(address: str) -> None:
    assert "hetero submit" in refusal(address).remedy


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "no.such.host.invalid:6379"])
def test_nobody_answers(address: str) -> None:
    assert "a Ray cluster must answer there" in refusal(address).rule


def test_a_machine_outside_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_node_ids", set)
    with socket.create_server(("127.0.0.1", 0)) as server:
        error = refusal(f"127.0.0.1:{server.getsockname()[1]}")
    assert "one of the cluster's own hosts" in error.rule
    assert "hetero submit" in error.remedy
