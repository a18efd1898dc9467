"""A fleet that is measured without being there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.chip import load_chip
from balancer.cost.times import UPDATE_BYTES, datasheet_times
from hetero.cluster.options import fleet_of
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.problem import topology, workload
from hetero.words.spec import CalibrationSpec
from tests.architecture.tree import ROOT

AUTO = str(ROOT / "configs" / "runs" / "auto.yaml")
SLOWNESS, SPREAD = 2.0, 0.03
CHIP = load_chip("A800-80G")


def emulated_job(*settings: str) -> Job:
    return load_job(Path(AUTO), ["time_scale=1000", *settings])


class SlowFleet:
    """A session whose chips take twice what their data sheets say."""

    def __init__(self, job: Job, node: str = "here", torch: str = "2.13") -> None:
        self.fleet, self._job, self._node, self._torch = fleet_of(job.pools), job, node, torch
        self.asked: Counter[str] = Counter()

    def node(self, host: str) -> str:
        return self._node

    def software(self, host: str) -> dict[str, str]:
        return {"torch": self._torch}

    def calibrate(self, spec: CalibrationSpec) -> list[dict[str, Any]]:
        self.asked["thorough" if spec.strategies else "quick"] += 1
        believed = datasheet_times(topology(self._job), workload(self._job))
        return [
            {
                "pool": pool,
                "tp": tp,
                "kind": unit.kind,
                "forward_s": SLOWNESS * time.forward_s,
                "backward_s": SLOWNESS * time.backward_s * (1 if size == spec.micro_batch else 100),
                "micro_batch": size,
                "spread": SPREAD,
                "repeats": spec.repeats,
            }
            for pool, sizes in spec.tensor_parallel.items()
            for tp in sizes
            for unit in {unit.kind: unit for unit in workload(self._job).units}.values()
            for size in sorted({spec.micro_batch, *spec.also})
            for time in [believed.lookup(pool, tp, unit.kind)]
        ]

    def rates(self, spec: CalibrationSpec) -> list[dict[str, Any]]:
        return [rate_row(pool, "update", CHIP.memory_bytes_per_s / UPDATE_BYTES / 2) for pool in spec.pools]

    def probe(self, links: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        raise AssertionError("all links of emulated pools are as the job file says")


def rate_row(pool: str, part: str, per_s: float, tp: int = 1) -> dict[str, Any]:
    return {"pool": pool, "part": part, "tp": tp, "shape": [1], "per_s": per_s, "spread": 0.0, "repeats": 1}
