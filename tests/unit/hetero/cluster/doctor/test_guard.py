"""Whether strangers may give orders to a cluster, or read what crosses to it, is found by asking as one of them."""

from __future__ import annotations

import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest
import ray

from hetero.cluster.doctor import guard
from hetero.cluster.jobs.jobs import JobServer

TOKEN = "Bearer 0123456789abcdef0123456789abcdef"


@pytest.fixture(params=[True, False], ids=["open", "guarded"])
def is_open(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def control_store(is_open: bool) -> Iterator[str]:
    """Wants the token unless it is open."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        if not is_open and ("authorization", TOKEN) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""

    handlers = {"GetClusterId": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def job_server(is_open: bool) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if is_open or "Authorization" in self.headers else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def joined(address: str, monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    """The levels of what is found of token and TLS."""
    monkeypatch.setattr(ray, "get_runtime_context", lambda: types.SimpleNamespace(gcs_address=address))
    monkeypatch.delenv(guard.TLS, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return [one.level for one in guard.of_joined()]


def test_a_cluster_that_hears_whoever_shows_no_token(
    control_store: str, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert joined(control_store, monkeypatch) == ["warning" if is_open else "ok", "ok"]


def test_tls_keeps_out_who_has_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joined("10.255.255.254:1", monkeypatch, RAY_USE_TLS="1") == ["ok", "ok"]


@pytest.mark.parametrize(
    ("is_on", "on_one_machine", "level"), [(True, False, "ok"), (False, True, "ok"), (False, False, "warning")]
)
def test_what_crosses_a_network_wants_tls(is_on: bool, on_one_machine: bool, level: str) -> None:
    finding = guard.tls(is_on=is_on, on_one_machine=on_one_machine)
    assert finding.level == level
    assert ("RAY_USE_TLS=1" in finding.remedy) == (level == "warning")


def test_a_job_server_that_hears_whoever_shows_no_token(
    job_server: str, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = types.SimpleNamespace()
    monkeypatch.setattr("hetero.cluster.jobs.jobs.JobSubmissionClient", lambda _: client)
    token, way = guard.of_server(JobServer(job_server))
    assert (token.level, way.level) == ("warning" if is_open else "ok", "ok")


@pytest.mark.parametrize(("scheme", "level"), [("http", "warning"), ("https", "ok")])
def test_the_way_to_a_job_server(scheme: str, level: str) -> None:
    assert guard.way(scheme, on_this_machine=False).level == level
    assert guard.way(scheme, on_this_machine=True).level == "ok"
