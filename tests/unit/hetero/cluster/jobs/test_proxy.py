"""Job servers behind proxies: named where one is in the way, passed by on the loopback, and where no_proxy says so."""

from __future__ import annotations

import os
import socket

import pytest

from hetero.cluster.errors import ClusterError
from hetero.cluster.host.loopback import check_loopback
from hetero.cluster.jobs.jobs import JobServer
from hetero.cluster.jobs.proxy import masked, proxies, proxy_to, reach_loopback_directly


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where nobody listens."""
    for name in proxies():
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("http_proxy", "http://ann:secret@127.0.0.1:1")
    return "http://127.0.0.1:1"


def test_the_proxy_in_the_way_is_named_without_its_password(proxy: str) -> None:
    with pytest.raises(ClusterError) as caught:
        JobServer("http://192.0.2.77:8265")
    assert (caught.value.key, caught.value.value) == ("--address", "http://192.0.2.77:8265")
    assert f"through the proxy {proxy} of the environment" in caught.value.rule
    assert "no_proxy=192.0.2.77" in caught.value.remedy
    assert "secret" not in f"{caught.value} {proxies()}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.3.2.1", "[::1]"])
def test_the_loopback_is_reached_without_one(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "head")
    url = f"http://{host}:1"
    with pytest.raises(ClusterError) as caught:
        JobServer(url)
    assert "proxy" not in caught.value.rule
    assert (proxy_to(url), proxy_to("http://head:8265")) == (None, None)


def test_no_proxy_is_honoured_and_others_are_left(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", ".inside,10.0.0.0/8")
    reach_loopback_directly("http://far:8265")
    assert os.environ["no_proxy"] == ".inside,10.0.0.0/8"
    assert [proxy_to(f"http://{host}:8265") for host in ("head.inside", "10.1.2.3", "far")] == [None, None, proxy]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://a:b@p:1", "http://p:1"),
        ("p:1", "p:1"),
        ("a:b@p:1", "p:1"),
        (".inside,10.0.0.0/8", ".inside,10.0.0.0/8"),
    ],
)
def test_a_password_is_not_shown(given: str, shown: str) -> None:
    assert masked(given) == shown


def test_a_loopback_that_is_down_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check_loopback()

    def unreachable(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(ClusterError, match="ip link set lo up") as caught:
        check_loopback()
    assert "Network is unreachable" in caught.value.rule
