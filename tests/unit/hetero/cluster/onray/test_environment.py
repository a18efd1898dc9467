"""What the environment says of some other Ray neither reaches a Ray of our own nor leads a command astray."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode

from hetero.cluster.doctor.ray_cluster import told_of
from hetero.cluster.jobs.jobs import JobServer
from hetero.cluster.onray.environment import look_again, private_environment

OTHERS = {
    "RAY_ADDRESS": "10.0.0.9:6379",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AUTH_TOKEN_PATH": "/nowhere",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}",
    "RAY_NAMESPACE": "theirs",
    "RAY_RAYLET_PID": "1",
    "RAY_RUNTIME_ENV_HOOK": "no.such",
    "RAY_TMPDIR": "/nowhere",
}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("elsewhere")
def test_a_ray_of_our_own_is_the_same_whatever_the_shell_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.5")
    mode = get_authentication_mode()
    with private_environment("secret", {"MARK": "x"}):
        ours = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        assert get_authentication_mode() == AuthenticationMode.TOKEN
        assert os.environ["MARK"] == "x"
    assert ours == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "secret",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_memory_usage_threshold": "0.5",
    }
    assert {name: os.environ[name] for name in OTHERS} == OTHERS
    assert "MARK" not in os.environ
    assert get_authentication_mode() == AuthenticationMode.TOKEN, "for as long as that Ray is up"
    look_again()
    assert get_authentication_mode() == mode


@pytest.fixture
def job_server() -> Iterator[str]:
    """Answers what a client asks first."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"ray_version": ray.__version__}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_a_job_server_that_is_named_is_the_one_that_is_asked(
    name: str, job_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert JobServer(job_server).ray_versions() == (ray.__version__, ray.__version__)
    assert os.environ[name] == "http://127.0.0.1:1"


def test_the_doctor_tells_of_variables_but_not_of_the_token() -> None:
    (finding,) = told_of({"HOME": "/root", "RAY_AUTH_TOKEN": "secret", "RAY_ADDRESS": "auto"})
    assert finding.value == "RAY_ADDRESS, RAY_AUTH_TOKEN"
    assert "secret" not in str(finding.as_data())
    assert told_of({"HOME": "/root"}) == []
