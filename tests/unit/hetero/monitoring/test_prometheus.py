"""What Prometheus scrapes: values of the record, names that its own tools accept, a dashboard that finds them all."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hetero.monitoring import scraped
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.prometheus import Metrics, PrometheusServer
from tests.contract.bridge_hosts import until
from tests.patience import WAIT_S
from tests.unit.hetero.monitoring.reports import SHADOW
from tests.unit.hetero.monitoring.runs import line, tracked

STEPS = 4
RUN = {"run": "small-run", "emulated": "true"}
POOL_A = {**RUN, "pool": "a", "family": "cpu"}
POOL_B = {**POOL_A, "pool": "b", "emulated": "false"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[PrometheusServer]:
    """Serves a run of four steps and two events."""
    endpoint = PrometheusServer(tracked(), "auto")
    for step in range(STEPS):
        more = {"shadow": asdict(SHADOW)} if step == 1 else {}
        endpoint.metrics.record(line(step, eval_loss=4.5, loss_scale=2.0, link_ratio=0.3, **more))
    endpoint.metrics.event({"kind": "planned"})
    endpoint.metrics.event({"kind": "planned"})
    yield endpoint
    endpoint.close()


def _scraped(endpoint: PrometheusServer) -> str:
    with urllib.request.urlopen(endpoint.url, timeout=WAIT_S) as answer:
        return str(answer.read().decode())


def _value(text: str, name: str, **labels: str) -> float:
    (value,) = (
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )
    return value


def test_gauges_equal_the_last_record(endpoint: PrometheusServer) -> None:
    text, last = _scraped(endpoint), line(STEPS - 1)
    assert _value(text, "hetero_loss", **RUN) == last["loss"]
    assert _value(text, "hetero_step", **RUN) == STEPS - 1
    assert _value(text, "hetero_tokens_per_second", **RUN) == last["tokens_per_s"]
    for labels, pool in ((POOL_A, last["pools"]["a"]), (POOL_B, last["pools"]["b"])):
        assert _value(text, "hetero_pool_capacity_tokens_per_second", **labels) == pool["capacity_tokens_per_s"]
        ratios = [_value(text, f"hetero_pool_{part}_ratio", **labels) for part in ("busy", "bubble", "bridge_wait")]
        assert ratios == [pool["busy"], pool["bubble"], pool["bridge_wait"]]
    stage = {"pipeline": "0", "stage": "1"} | POOL_B
    assert _value(text, "hetero_stage_backward_seconds", **stage) == last["stages"][1]["backward_s"]
    assert _value(text, "hetero_shadow_value_error", **stage) == SHADOW.value
    assert _value(text, "hetero_shadow_gradient_error", **stage) == SHADOW.gradient
    assert _value(text, "hetero_shadow_tolerance", **stage) == SHADOW.tolerance


def test_nothing_is_told_of_a_stage_that_is_of_former_times() -> None:
    metrics, told = Metrics(tracked()), asdict(SHADOW)
    stage = {"pipeline": "0", "stage": "1"} | POOL_B

    def shown(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, stage)

    metrics.record(line(0, shadow=told))
    assert shown("hetero_shadow_gradient_error") == SHADOW.gradient
    del told["gradient"]
    metrics.record(line(1, shadow=told))
    assert math.isnan(shown("hetero_shadow_gradient_error") or 0.0)
    metrics.record(line(2))
    assert shown("hetero_shadow_value_error") == SHADOW.value
    metrics.record(line(3, epoch=1, stages=[]))
    assert shown("hetero_shadow_value_error") is shown("hetero_stage_forward_seconds") is None


def test_counters_add_up_over_the_steps(endpoint: PrometheusServer) -> None:
    text = _scraped(endpoint)
    records = [line(step) for step in range(STEPS)]
    sent = sum(record["pools"]["a"]["bytes_sent"] for record in records)
    assert _value(text, "hetero_bridge_sent_bytes_total", **POOL_A) == sent
    link = {"run": "small-run", "source": "a", "target": "b", "emulated": "true"}
    for way in ("sent", "received"):
        crossed = sum(record["links"][0][f"bytes_{way}"] for record in records)
        assert _value(text, f"hetero_link_{way}_bytes_total", **link) == crossed > 0
    assert _value(text, "hetero_link_exposed_seconds", **link) == records[-1]["links"][0]["exposed_s"]
    assert _value(text, "hetero_step_seconds_count", **RUN) == STEPS
    assert _value(text, "hetero_step_seconds_sum", **RUN) == sum(record["step_s"] for record in records)
    assert _value(text, "hetero_tokens_total", **RUN) == sum(record["tokens"] for record in records)
    assert _value(text, "hetero_events_total", **RUN, kind="planned") == 2


def test_facts_are_labels_of_info_metrics(endpoint: PrometheusServer) -> None:
    text = _scraped(endpoint)
    assert _value(text, "hetero_pool_info", **POOL_A, chip="A", chips="2") == 1
    assert _value(text, "hetero_run_info", **RUN, project="small", folder="runs/small-run") == 1


def test_a_port_that_is_taken_is_the_users_mistake(endpoint: PrometheusServer) -> None:
    port = int(endpoint.url.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(MonitorError) as caught:
        PrometheusServer(tracked(), port)
    assert (caught.value.key, caught.value.value) == ("monitor.prometheus_port", port)


def test_only_this_host_is_served(endpoint: PrometheusServer) -> None:
    assert endpoint.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1:1", 200), ("localhost", 200), ("[::1]:80", 200), ("evil.example", 403), ("evil.example:1", 403),
     ("127.0.0.1.evil.example", 403), ("[", 403)],
)  # fmt: skip
def test_it_answers_to_names_of_this_host_alone(endpoint: PrometheusServer, host: str, code: int) -> None:
    """No page of elsewhere can read it by a name that it points here."""
    request = urllib.request.Request(endpoint.url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            found, body = answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        found, body = refusal.code, refusal.read()
    assert found == code
    assert (b"hetero_step" in body) is (code == 200)


def test_strangers_that_say_nothing_cost_few_threads(endpoint: PrometheusServer) -> None:
    address = ("127.0.0.1", int(endpoint.url.rsplit(":", 1)[1].split("/")[0]))
    before = threading.active_count()
    with contextlib.ExitStack() as strangers:
        ends = [strangers.enter_context(socket.create_connection(address, WAIT_S)) for _ in range(2 * scraped.MOST)]
        for end in ends[: scraped.MOST]:  # who came first has had the most time
            assert end.recv(1) == b""
        assert "hetero_step" in _scraped(endpoint)
        until(lambda: threading.active_count() <= before + scraped.MOST)


def _panels() -> list[dict[str, Any]]:
    dashboard = json.loads((files("hetero.monitoring") / "grafana.json").read_text())
    panels: list[dict[str, Any]] = dashboard["panels"]
    return panels


@pytest.mark.parametrize("panel", _panels(), ids=lambda panel: panel["title"])
def test_every_panel_names_metrics_that_the_run_exports(panel: dict[str, Any], endpoint: PrometheusServer) -> None:
    samples = [sample for family in text_string_to_metric_families(_scraped(endpoint)) for sample in family.samples]
    names = {sample.name for sample in samples}
    labels = {label for sample in samples for label in sample.labels}
    assert panel["targets"]
    for target in panel["targets"]:
        named = re.findall(r"\bhetero_\w+", target["expr"])
        assert named
        assert set(named) <= names
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 8)}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: apt-get install prometheus")
    return path


def test_promtool_has_nothing_to_say(endpoint: PrometheusServer) -> None:
    command = [_program("promtool"), "check", "metrics"]
    result = subprocess.run(command, input=_scraped(endpoint), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_promtool_would_speak_up(endpoint: PrometheusServer) -> None:
    command = [_program("promtool"), "check", "metrics"]
    bad = "# TYPE hetero_sent counter\nhetero_sent 1\n"
    assert subprocess.run(command, input=bad, capture_output=True, text=True, check=False).returncode != 0


@pytest.mark.slow
def test_a_real_prometheus_scrapes_the_run(endpoint: PrometheusServer, tmp_path: Path) -> None:
    program, port = _program("prometheus"), _free_port()
    target = endpoint.url.removeprefix("http://").removesuffix("/metrics")
    config = {"scrape_configs": [{"job_name": "hetero", "scrape_interval": "1s",
                                  "static_configs": [{"targets": [target]}]}]}  # fmt: skip
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    command = [program, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            found = _query(port, "hetero_pool_capacity_tokens_per_second")
        finally:
            server.terminate()
    values = {one["metric"]["pool"]: float(one["value"][1]) for one in found}
    pools = line(STEPS - 1)["pools"]
    assert values == pytest.approx({name: pool["capacity_tokens_per_s"] for name, pool in pools.items()})
    assert {one["metric"]["emulated"] for one in found} == {"true", "false"}


def _query(port: int, expression: str) -> list[dict[str, Any]]:
    """The instant vector, once it is not empty."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={expression}"
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except OSError:
            result = []
        if result:
            return result
        time.sleep(0.3)
    raise AssertionError(f"prometheus never answered {expression}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
