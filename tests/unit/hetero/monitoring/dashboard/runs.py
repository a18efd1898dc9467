"""A run directory that is written step by step, as `hetero train` writes one, without a training."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from hetero.monitoring.alerts import Alerts
from hetero.monitoring.journal import EVENTS, METRICS, EventJournal, Journal, Record
from hetero.monitoring.trace import Trace
from hetero.words.step import Spans
from tests.unit.hetero.monitoring.reports import traced

CHIPS = {
    "nvidia": ("cuda", "A800-80G", 2),
    "ascend": ("ascend", "Ascend-910B2", 4),
    "kunlun": ("kunlun", "Kunlun-P800", 2),
}
RATES = {"nvidia": 5400.0, "ascend": 9200.0, "kunlun": 6100.0}
BUSY = {"nvidia": 0.93, "ascend": 0.9, "kunlun": 0.95}
LINKS = (
    ("nvidia", "ascend", 2_097_152, 0.031),
    ("ascend", "nvidia", 2_097_152, 0.012),
    ("ascend", "kunlun", 71_744, 0.004),
    ("kunlun", "ascend", 76_352, 0.0),
)
STAGES = ((0, 0, "nvidia"), (0, 1, "ascend"), (1, 0, "kunlun"))
PLAN = {
    "version": 1, "epoch": 0, "job_fingerprint": "0", "schedule": "1f1b",
    "pipelines": [
        {"share": 10, "micro_batch": 2, "stages": [
            {"pool": "nvidia", "tp": 2, "units": [0, 3], "chips": [0, 1]},
            {"pool": "ascend", "tp": 4, "units": [3, 10], "chips": [0, 1, 2, 3]}]},
        {"share": 6, "micro_batch": 2, "stages": [{"pool": "kunlun", "tp": 2, "units": [0, 10], "chips": [0, 1]}]},
    ],
}  # fmt: skip


class SyntheticRun:
    """`names` renames the three pools, in order. `slow` pools compute at 0.6 of their speed."""

    def __init__(
        self, folder: Path, name: str = "quickstart", steps: int = 60, names: tuple[str, ...] = tuple(CHIPS)
    ) -> None:
        self.folder, self.name, self.steps = folder, name, steps
        self.called = dict(zip(CHIPS, names, strict=True))
        self.slow: set[str] = set()
        self.records: list[Record] = []
        self.begin()

    def begin(self) -> None:
        """Start, or start again from nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.records, self._alerts, self._time = [], Alerts(), time.time()
        pools = {
            self.called[pool]: {"family": family, "chip": chip, "count": count, "emulate": {}}
            for pool, (family, chip, count) in CHIPS.items()
        }
        train = {"steps": self.steps, "global_batch": 16}
        data = {"seq_len": 1024}
        job = {"name": self.name, "model": {"preset": "llama-tiny"}, "data": data, "train": train, "pools": pools}
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
        plan = json.dumps(PLAN)
        for pool, called in self.called.items():
            plan = plan.replace(json.dumps(pool), json.dumps(called))
        (self.folder / "plan.json").write_text(plan)
        self._metrics, self._events = Journal(self.folder / METRICS), EventJournal(self.folder / EVENTS)
        self._trace = Trace(self.folder / "trace.json")
        for pool, (family, chip, count) in CHIPS.items():
            called = self.called[pool]
            facts = {"host": f"{called}@0", "family": family, "chip": chip, "ranks": count}
            self._events.write("host_ready", step=0, epoch=-1, pool=called, **facts)
        self._events.write("planned", time_scale=250.0, link_ratio=0.31)
        self._events.write("configured", step=0, epoch=0, hosts=3)

    def advance(self, steps: int = 1) -> Record:
        """The next lines of metrics, with the alerts that they raise; returns the last."""
        for _ in range(steps):
            line = self._line(len(self.records))
            self.records.append(line)
            self._metrics.append(line)
            for notice in self._alerts.record(line):
                self._events.write(notice.kind, **notice.facts)
            if line["step"] % 10 == 0:
                self._trace_step(line["step"])
        return self.records[-1]

    def finish(self) -> None:
        self._events.write("finished")
        self.close()

    def fail(self, message: str) -> None:
        rank = f"{self.called['ascend']}:2"
        self._events.write("failed", step=len(self.records), rank=rank, error={"type": "PeerLost", "message": message})
        self.close()

    def close(self) -> None:
        for file in (self._metrics, self._events, self._trace):
            file.close()

    def _line(self, step: int) -> Record:
        wobble = 0.01 * math.sin(1.7 * step) + 0.004 * math.sin(5.3 * step)
        factor = {pool: 0.6 if pool in self.slow else 1.0 for pool in CHIPS}
        slowest = min(factor.values())
        step_s = 0.8 * (1 + wobble) / slowest
        self._time += step_s
        rates = {pool: RATES[pool] * BUSY[pool] * slowest * (1 - wobble) for pool in CHIPS}
        job_rate = sum(rates.values())
        return {
            "step": step, "time": self._time, "epoch": 0, "loss": _loss(step),
            "eval_loss": _loss(step) + 0.07 if step % 10 == 9 else None,
            "shadow": self._shadow() if step % 10 == 7 else None,
            "grad_norm": 0.6 + math.exp(-step / 9), "lr": 0.002, "loss_scale": 1.0, "skipped": False, "tokens": 16384,
            "consumed_tokens": (step + 1) * 16384, "step_s": step_s, "tokens_per_s": job_rate, "goodput": 0.987,
            "emulated": True, "overrun": False, "link_ratio": 0.31,
            "pools": {self.called[pool]: _pool(pool, rates[pool], factor[pool] / slowest) for pool in CHIPS},
            "links": [self._link(*ends, step_s) for ends in LINKS],
            "stages": [self._stage(*place, factor) for place in STAGES],
        }  # fmt: skip

    def _shadow(self) -> Record:
        pools = {"pool": self.called["ascend"], "by": self.called["nvidia"]}
        found = {"unit": 5, "unit_kind": "attention", "value": 2e-3, "gradient": 4e-3, "tolerance": 3e-2}
        return {"pipeline": 0, "stage": 1, **pools, "micro_batch": 2, **found}

    def _stage(self, pipeline: int, stage: int, pool: str, factor: dict[str, float]) -> Record:
        compute_s = 0.24 * BUSY[pool] / factor[pool]
        return {
            "pipeline": pipeline, "stage": stage, "pool": self.called[pool], "forward_s": compute_s,
            "backward_s": 2 * compute_s, "weight_s": 0.0, "wait_s": 0.8 * (1 - BUSY[pool]), "slowest_rank": 1,
            "host": f"{self.called[pool]}@0",
        }  # fmt: skip

    def _link(self, source: str, target: str, nbytes: int, exposed_s: float, step_s: float) -> Record:
        return {
            "source": self.called[source], "target": self.called[target], "bytes_sent": nbytes,
            "bytes_received": nbytes, "bytes_per_s": nbytes / step_s, "exposed_s": exposed_s,
        }  # fmt: skip

    def _trace_step(self, step: int) -> None:
        for pool, (_, _, count) in CHIPS.items():
            spans = [_spans(self._time, pool, rank) for rank in range(count)]
            self._trace.add(traced(self.called[pool], step, spans))


def _loss(step: int) -> float:
    return 2.2 + 3.3 * math.exp(-step / 14) + 0.04 * math.sin(2.1 * step)


def _pool(pool: str, rate: float, spare: float) -> dict[str, Any]:
    """`spare` times faster than the slowest, a pool waits for the rest of the step."""
    busy = BUSY[pool] / spare
    rest = 1 - busy
    return {
        "capacity_tokens_per_s": rate / busy, "tokens_per_s": rate, "tflops_per_chip": rate / 4e4, "mfu": 0.41 / spare,
        "busy": busy, "bubble": 0.6 * rest, "bridge_wait": 0.25 * rest, "other": 0.15 * rest,
        "data_wait": 0.0008,
        "bytes_sent": 2_168_896, "bytes_received": 2_173_504, "peak_memory_bytes": int(rate * 4000),
    }  # fmt: skip


def _spans(began: float, pool: str, rank: int) -> Spans:
    """One forward, one backward: five micro-batches, then the sync."""
    first_stage, now = pool == "nvidia", began + 0.0004 * rank
    spans: list[tuple[str, float, float]] = []

    def add(name: str, seconds: float) -> None:
        nonlocal now
        spans.append((name, now, seconds))
        now += seconds

    for number in range(5):
        if pool == "ascend":
            add(f"wait activation 0.{number}", 0.05 if number == 0 else 0.004)
        add(f"F 0.{number}", 0.045)
        if first_stage and number == 0:
            add("wait gradient 0.0", 0.06)
        add(f"B 0.{number}", 0.09)
    add("SYNC 0", 0.03)
    add("wait parameters", 0.01)
    add("STEP", 0.02)
    return tuple(spans)
