"""The run as Prometheus sees it: metrics in its naming and units, served on this host alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any
from wsgiref.simple_server import make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, make_wsgi_app

from hetero.monitoring.dashboard.address import calls_loopback
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.scraped import Handler, Server
from hetero.monitoring.tracked import TrackedRun

HOST = "127.0.0.1"
KEY = "monitor.prometheus_port"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
STEP_BUCKETS = tuple(0.05 * 2**power for power in range(15))  # 50 ms to 14 minutes

RUN = ("run", "emulated")
POOL = ("run", "pool", "family", "emulated")
LINK = ("run", "source", "target", "emulated")
STAGE = ("run", "pipeline", "stage", "pool", "family", "emulated")

RUN_GAUGES = {
    "loss": ("hetero_loss", "Training loss of the last step, per token."),
    "eval_loss": ("hetero_validation_loss", "Validation loss when it was last measured, per token."),
    "grad_norm": ("hetero_gradient_norm", "Norm of the gradient before clipping."),
    "lr": ("hetero_learning_rate", "Learning rate of the last step."),
    "loss_scale": ("hetero_loss_scale", "Scale of the loss for float16 gradients."),
    "tokens_per_s": ("hetero_tokens_per_second", "Trained tokens per second in the last step."),
    "goodput": ("hetero_goodput_ratio", "Useful step time over wall time since the start."),
    "link_ratio": ("hetero_link_ratio", "Modelled transfer time over compute time of emulated links."),
}
POOL_GAUGES = {
    "capacity_tokens_per_s": ("hetero_pool_capacity_tokens_per_second", "What the pool could do if it never waited."),
    "tokens_per_s": ("hetero_pool_tokens_per_second", "The pool's part of the job's tokens per second."),
    "mfu": ("hetero_pool_mfu_ratio", "Model FLOPs over the chips' datasheet peak."),
    "busy": ("hetero_pool_busy_ratio", "Part of the step spent computing."),
    "bubble": ("hetero_pool_bubble_ratio", "Part of the step without work to do."),
    "bridge_wait": ("hetero_pool_bridge_wait_ratio", "Part of the step spent waiting for other pools' bytes."),
    "other": ("hetero_pool_other_ratio", "Part of the step that nothing else accounts for."),
    "data_wait": ("hetero_pool_data_wait_ratio", "Part of the step spent waiting for samples, within other."),
    "peak_memory_bytes": ("hetero_pool_peak_memory_bytes", "Most memory that one chip of the pool has used."),
}
LINK_GAUGES = {
    "exposed_s": ("hetero_link_exposed_seconds", "Longest time that a rank stood still for the link in the last step."),
}
LINK_COUNTERS = {
    "bytes_sent": ("hetero_link_sent_bytes_total", "Bytes that the source pool sent to the target pool."),
    "bytes_received": ("hetero_link_received_bytes_total", "Bytes that the target pool received from the source pool."),
}
STAGE_GAUGES = {
    "forward_s": ("hetero_stage_forward_seconds", "Forward time of the stage's slowest rank in the last step."),
    "backward_s": ("hetero_stage_backward_seconds", "Backward time of the stage's slowest rank in the last step."),
    "weight_s": ("hetero_stage_weight_seconds", "Weight gradient time of the stage's slowest rank, where apart."),
    "wait_s": ("hetero_stage_wait_seconds", "Waiting time of the stage's slowest rank in the last step."),
}
SHADOW_GAUGES = {
    "value": ("hetero_shadow_value_error", "Relative error of a unit's value when the stage was last computed again."),
    "gradient": ("hetero_shadow_gradient_error", "Relative error of the gradient of what the unit was given."),
    "tolerance": ("hetero_shadow_tolerance", "What both may be."),
}


@dataclass
class Metrics:
    """The metrics of one run, in a registry of their own."""

    run: TrackedRun
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        def gauges(table: Mapping[str, tuple[str, str]], labels: tuple[str, ...]) -> dict[str, Gauge]:
            return {key: Gauge(name, text, labels, registry=self.registry) for key, (name, text) in table.items()}

        def counter(name: str, text: str, labels: tuple[str, ...] = RUN) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self._run = gauges(RUN_GAUGES, RUN)
        self._pool = gauges(POOL_GAUGES, POOL)
        self._link = gauges(LINK_GAUGES, LINK)
        self._crossed = {key: counter(name, text, LINK) for key, (name, text) in LINK_COUNTERS.items()}
        self._stage, self._shadow = gauges(STAGE_GAUGES, STAGE), gauges(SHADOW_GAUGES, STAGE)
        self._seconds = Histogram(
            "hetero_step_seconds", "Duration of steps.", RUN, registry=self.registry, buckets=STEP_BUCKETS
        )
        self._tokens = counter("hetero_tokens_total", "Tokens trained since this process started.")
        self._skipped = counter("hetero_skipped_steps_total", "Steps whose update was skipped.")
        self._overrun = counter("hetero_overrun_steps_total", "Emulated steps that took longer than modelled.")
        self._sent = counter("hetero_bridge_sent_bytes_total", "Bytes that the pool sent over the bridge.", POOL)
        self._received = counter(
            "hetero_bridge_received_bytes_total", "Bytes that the pool received over the bridge.", POOL
        )
        self._events = counter("hetero_events_total", "Events of the run, by kind.", (*RUN, "kind"))
        self._step = Gauge("hetero_step", "Index of the last finished step.", RUN, registry=self.registry)
        self._epoch: int | None = None
        self._describe()

    def record(self, line: Mapping[str, Any]) -> None:
        """Takes one line of `metrics.jsonl`; what it lacks keeps its last value, but that stages of an earlier plan go,
        and that a gradient which the stage's newest shadow did not compare is NaN."""
        labels = self.run.labels()
        self._forget_stages(line["epoch"])
        _set(self._run, line, labels)
        self._step.labels(**labels).set(line["step"])
        self._seconds.labels(**labels).observe(line["step_s"])
        self._tokens.labels(**labels).inc(line["tokens"] or 0)
        self._skipped.labels(**labels).inc(bool(line["skipped"]))
        self._overrun.labels(**labels).inc(bool(line["overrun"]))
        for name, pool in line["pools"].items():
            _set(self._pool, pool, self.run.labels(name))
            self._sent.labels(**self.run.labels(name)).inc(pool["bytes_sent"])
            self._received.labels(**self.run.labels(name)).inc(pool["bytes_received"])
        for link in line["links"]:
            ends = self.run.link_labels(link["source"], link["target"])
            _set(self._link, link, ends)
            for key, crossed in self._crossed.items():
                crossed.labels(**ends).inc(link[key])
        for stage in line["stages"]:
            _set(self._stage, stage, self._place(stage))
        if shadow := line.get("shadow"):
            _set(self._shadow, dict.fromkeys(SHADOW_GAUGES, nan) | shadow, self._place(shadow))

    def event(self, event: Mapping[str, Any]) -> None:
        self._events.labels(**self.run.labels(), kind=event["kind"]).inc()

    def _forget_stages(self, epoch: int) -> None:
        if epoch != self._epoch:
            for gauge in (*self._stage.values(), *self._shadow.values()):
                gauge.clear()
        self._epoch = epoch

    def _place(self, stage: Mapping[str, Any]) -> dict[str, str]:
        place = {"pipeline": str(stage["pipeline"]), "stage": str(stage["stage"])}
        return self.run.labels(stage["pool"]) | place

    def _describe(self) -> None:
        """What does not change: constant facts as labels, by Prometheus's custom of `_info`."""
        run = Info("hetero_run", "The run.", RUN, registry=self.registry)
        run.labels(**self.run.labels()).info({"project": self.run.project, "folder": str(self.run.folder)})
        pools = Info("hetero_pool", "A pool of the run.", POOL, registry=self.registry)
        for name, pool in self.run.pools.items():
            pools.labels(**self.run.labels(name)).info({"chip": pool.chip, "chips": str(pool.count)})


class PrometheusServer:
    """Serves a run's metrics at `url` until it is closed."""

    def __init__(self, run: TrackedRun, port: int | str) -> None:
        """`port` "auto" takes a free one. MonitorError if the port is taken or not allowed."""
        self.metrics = Metrics(run)
        self._server = self._listen(0 if port == "auto" else int(port))
        self.url = f"http://{HOST}:{self._server.server_port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _listen(self, port: int) -> Server:
        app = _local(make_wsgi_app(self.metrics.registry))
        try:
            server = make_server(HOST, port, app, Server, Handler)
        except OSError as error:
            rule = f"the port cannot be listened on ({error.strerror})"
            raise MonitorError(KEY, port, rule, "choose another, or `auto` for a free one") from None
        threading.Thread(target=server.serve_forever, name="prometheus", daemon=True).start()
        return server


def _local(app: Application) -> Application:
    """Answers only those who call this host by a name of its own, as the dashboard does."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if calls_loopback(environ.get("HTTP_HOST", "")):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"these metrics answer to localhost alone\n"]

    return answer


def _set(gauges: Mapping[str, Gauge], values: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    for key, gauge in gauges.items():
        if values.get(key) is not None:
            gauge.labels(**labels).set(values[key])
