"""Run directories as a training leaves them, without a training: for tests of what reads and shows runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Record = dict[str, Any]
START = 1_764_000_000.0
STEP_S = 0.8
UNITS = {"nvidia": [0, 3], "ascend": [3, 10], "kunlun": [0, 10]}
CHIPS = {
    "nvidia": ("cuda", "A800-80G", 2),
    "ascend": ("ascend", "Ascend-910B2", 4),
    "kunlun": ("kunlun", "Kunlun-P800", 2),
}


def metrics_line(step: int, *, slow: Mapping[str, float] | None = None, emulated: bool = True) -> Record:
    """One line of `metrics.jsonl`, as `hetero.monitoring.record` writes it. `slow` stretches the work of pools."""
    slow = slow or {}
    step_s = STEP_S * max([1.0, *slow.values()])
    tokens_per_s = 8192 / step_s
    return {
        "step": step, "time": START + STEP_S * (step + 1), "epoch": 0, "loss": 2.0 + 3.5 * math.exp(-step / 50),
        "grad_norm": 1.2, "lr": 1e-3, "loss_scale": 1.0, "skipped": False, "tokens": 8192,
        "consumed_tokens": 8192 * (step + 1), "step_s": step_s, "tokens_per_s": tokens_per_s, "goodput": 0.97,
        "emulated": emulated, "overrun": False, "link_ratio": 0.31,
        "pools": {pool: _pool(tokens_per_s, step_s, slow.get(pool, 1.0)) for pool in CHIPS},
        "links": [_link("nvidia", "ascend", step_s), _link("ascend", "nvidia", step_s)],
        "stages": [_stage(pool, slow.get(pool, 1.0)) for pool in CHIPS],
    }  # fmt: skip


def write_run(
    run_dir: Path, steps: int = 40, *, name: str = "quickstart", pool_names: Mapping[str, str] | None = None,
    slow_from: tuple[int, Mapping[str, float]] | None = None, finished: bool = False,
) -> Path:  # fmt: skip
    """A run of `steps` steps over three pools. `pool_names` renames pools everywhere; `slow_from` is (step, slow)."""
    run_dir.mkdir(parents=True, exist_ok=True)
    renamed = {pool: (pool_names or {}).get(pool, pool) for pool in CHIPS}
    (run_dir / "job.yaml").write_text(yaml.safe_dump(_rename(job(name, steps), renamed), sort_keys=False))
    (run_dir / "plan.json").write_text(json.dumps(_rename(plan(), renamed)))
    first_slow, slow = slow_from or (steps, {})
    for step in range(steps):
        line = metrics_line(step, slow=slow if step >= first_slow else None)
        append(run_dir / "metrics.jsonl", _rename(line, renamed))
    for event in events(finished):
        append(run_dir / "events.jsonl", _rename(event, renamed))
    return run_dir


def append(path: Path, record: Record) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def events(finished: bool = False) -> Iterator[Record]:
    """The events of a run that started well."""
    told: list[tuple[str, str | None, Record]] = [
        ("host_ready", pool, {"host": f"{pool}@0", "family": family, "chip": chip, "ranks": count, "node": "vm"})
        for pool, (family, chip, count) in CHIPS.items()
    ]
    told += [("measuring", None, {}), ("planned", None, {"time_scale": 900.0, "link_ratio": 0.31})]
    told += [("configured", None, {"hosts": 3})] + ([("finished", None, {})] if finished else [])
    for seq, (kind, pool, data) in enumerate(told):
        yield {
            "seq": seq, "time": START + seq * 0.01, "step": None, "epoch": None, "kind": kind, "pool": pool,
            "rank": None, "data": data,
        }  # fmt: skip


def job(name: str = "quickstart", steps: int = 40) -> Record:
    """The part of a resolved job file that says what is run; a valid job file as it is."""
    return {
        "name": name,
        "model": {"preset": "llama-tiny"},
        "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 256},
        "train": {"steps": steps, "global_batch": 32, "micro_batch": 2, "precision": "float32", "seed": 0},
        "pools": {
            pool: {"family": family, "chip": chip, "count": count, "tp": count, "emulate": {}}
            for pool, (family, chip, count) in CHIPS.items()
        },
    }


def plan() -> Record:
    stages = {pool: _planned_stage(pool) for pool in CHIPS}
    return {
        "version": 1, "epoch": 0, "job_fingerprint": "f8cfbfea7bad358f", "schedule": "1f1b",
        "pipelines": [
            {"share": 20, "micro_batch": 2, "stages": [stages["nvidia"], stages["ascend"]], "replicas": 1},
            {"share": 12, "micro_batch": 2, "stages": [stages["kunlun"]], "replicas": 1},
        ],
    }  # fmt: skip


def _pool(job_tokens_per_s: float, step_s: float, slow: float) -> Record:
    tokens_per_s, busy = job_tokens_per_s / len(CHIPS), 0.9 * slow * STEP_S / step_s
    waits = 1 - busy
    return {
        "capacity_tokens_per_s": tokens_per_s / busy, "tokens_per_s": tokens_per_s, "tflops_per_chip": 0.1, "mfu": 0.4,
        "busy": busy, "optimizer": 0.03 * busy, "bubble": waits * 0.5, "bridge_wait": waits * 0.3, "other": waits * 0.2,
        "data_wait": 0.001,
        "bytes_sent": 2_000_000, "bytes_received": 3_000_000, "peak_memory_bytes": 7 << 20,
    }  # fmt: skip


def _link(source: str, target: str, step_s: float) -> Record:
    return {
        "source": source, "target": target, "bytes_sent": 2_000_000, "bytes_received": 2_000_000,
        "bytes_per_s": 2_000_000 / step_s, "exposed_s": 0.02,
    }  # fmt: skip


def _stage(pool: str, slow: float) -> Record:
    pipeline, stage = {"nvidia": (0, 0), "ascend": (0, 1), "kunlun": (1, 0)}[pool]
    return {
        "pipeline": pipeline, "stage": stage, "pool": pool, "forward_s": 0.24 * slow, "backward_s": 0.48 * slow,
        "weight_s": 0.0, "wait_s": 0.05, "slowest_rank": CHIPS[pool][2] - 1, "host": f"{pool}@0",
    }  # fmt: skip


def _planned_stage(pool: str) -> Record:
    chips = list(range(CHIPS[pool][2]))
    return {"pool": pool, "tp": len(chips), "units": UNITS[pool], "chips": chips, "warmup": 2, "owns": None}


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {names.get(key, key): _rename(item, names) for key, item in value.items()}
    return [_rename(item, names) for item in value] if isinstance(value, list) else value
