"""The folder of a run over 1,024 chips and one more, in 64 equal pipelines of which number 37 is the slowest."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.hetero.monitoring.synthetic import append, metrics_line, write_run

CHIPS, PIPELINES, SLOWEST = 1025, 64, 37


def write_crowd(run_dir: Path) -> Path:
    write_run(run_dir, steps=3)
    job = (run_dir / "job.yaml").read_text().replace("count: 2\n", f"count: {CHIPS}\n", 1)
    (run_dir / "job.yaml").write_text(job[: job.index("  ascend:")])
    stages = [{"pool": "nvidia", "tp": 8, "units": units} for units in ([0, 5], [5, 10])]
    pipelines = [
        {"share": 4, "micro_batch": 2, "stages": [{**stage, "chips": [16 * p + s]} for s, stage in enumerate(stages)]}
        for p in range(PIPELINES)
    ]
    (run_dir / "plan.json").write_text(json.dumps({"schedule": "1f1b", "pipelines": pipelines}))
    line = metrics_line(3)
    line["pools"] = {"nvidia": line["pools"]["nvidia"]}
    line["stages"] = [
        {
            "pipeline": p, "stage": s, "pool": "nvidia", "forward_s": 0.1 + 0.1 * (p == SLOWEST), "backward_s": 0.2,
            "weight_s": 0.0, "wait_s": 0.1, "slowest_rank": 16 * p + s, "host": f"nvidia@{2 * p}",
        }
        for p in range(PIPELINES) for s in range(2)
    ]  # fmt: skip
    append(run_dir / "metrics.jsonl", line)
    return run_dir
