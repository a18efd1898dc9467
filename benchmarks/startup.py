"""What a start costs before the first step, and what the replica check costs a step, at the size of an 8B model.

    python -m benchmarks.startup [--json] [--no-job]

Rates are measured on this machine and scaled to paper sizes; no chip was at hand. The model has 8e9 parameters at tp 8,
1e9 for each rank, hidden 4096 and a vocabulary of 128,256:

- `initial_values_s`: 1e9 over the rate of normal values, on the cores that a rank has here, at most eight;
- `calibration_s`: what is filled before embedding and head are timed at tp 1, 128,256 x 4096 bfloat16 each; the passes
  themselves are the chip's;
- `pinning_s`: 1 GiB of slots, an assumption, over the rate at which their pages are first touched: a driver's own work
  on top of that is not in it;
- `replica_check_host_s`: 1e9 bfloat16 parameters over the rate of the check on this processor;
- `replica_check_s`: the same on a chip, where it is memory traffic: 34 bytes a parameter (2 read and 8 written to
  widen, 16 to multiply, 8 to sum) at the datasheet's rate, for the chip whose share of a step is largest;
- `replica_check_share`: that over ten steps, as often as by default. A step is 6 operations a parameter and token for
  262,144 tokens (64 sequences of 4,096) at the datasheet's operations and usual efficiency;
- `small_job_s`: from `hetero train` of the quickstart to its first step here, with `small_job_KIND_s`, seconds until
  the event KIND; with emulated chips;
- `first_step_s`: the first three together, and the small job's start where it was run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import perf_counter

import torch

from backends.chip import ChipSpec, load_chip
from benchmarks.report import print_report
from benchmarks.usage import other_work
from bridge.slots import SlotRing
from hetero.engine.calibration import fill_with_noise
from hetero.engine.replicas import weighted_bits
from hetero.layers.initial import normal_slice

PARAMETERS, HIDDEN, VOCABULARY, TOKENS = 1e9, 4096, 128_256, 64 * 4096
SLOT_BYTES, CHECK_EVERY, CHECK_BYTES = 1 << 30, 10, 34
CHIPS = ("A100-80G", "A800-80G", "H800", "Ascend-910B2", "Kunlun-P800")
QUICKSTART = Path(__file__).parents[1] / "configs" / "runs" / "quickstart.yaml"


def measure(rounds: int = 3) -> dict[str, float]:
    """The parts at paper sizes."""
    rows, whole = 4096, ((0, 4096), (0, HIDDEN))
    tensor = torch.empty((rows, HIDDEN), dtype=torch.bfloat16)
    count = tensor.numel()
    values_s = _best(rounds, lambda: normal_slice("w", 0, (rows, HIDDEN), whole, 0.02))
    noise_s = _best(rounds, lambda: fill_with_noise(tensor))
    check_s = _best(rounds, lambda: weighted_bits(tensor, whole))
    pages_s = _best(rounds, _touch)
    told = {
        "initial_values_s": PARAMETERS / count * values_s,
        "calibration_s": 2 * VOCABULARY * HIDDEN / count * noise_s,
        "pinning_s": SLOT_BYTES / _TOUCHED * pages_s,
        "replica_check_host_s": PARAMETERS / count * check_s,
    }
    share, on_chip_s = max(_on_chip(load_chip(chip)) for chip in CHIPS)
    return told | {"replica_check_s": on_chip_s, "replica_check_share": share}


def _on_chip(chip: ChipSpec) -> tuple[float, float]:
    """Of a step, and in seconds."""
    check_s = PARAMETERS * CHECK_BYTES / chip.memory_bytes_per_s
    precision = "bfloat16" if "bfloat16" in chip.peak_flops else "float16"
    step_s = 6 * PARAMETERS * TOKENS / chip.flops_per_s(precision)
    return check_s / CHECK_EVERY / step_s, check_s


_TOUCHED = 64 << 20


def _touch() -> None:
    ring = SlotRing(_TOUCHED // 4, 4)
    for slot in range(4):
        ring.view(slot)[::4096] = bytes(len(ring.view(slot)[::4096]))
    ring.close()


def _best(rounds: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(rounds):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return min(times)


def small_job() -> dict[str, float]:
    """The quickstart's start by its journal."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        began = datetime.now().timestamp()
        command = [sys.executable, "-m", "hetero.cli", "train", str(QUICKSTART), "--run-dir", str(run)]
        subprocess.run([*command, "--set", "train.steps=2"], check=True, stdout=subprocess.DEVNULL)
        told: dict[str, float] = {}
        for name in ("events", "metrics"):
            for line in (run / f"{name}.jsonl").read_text().splitlines():
                record = json.loads(line)
                key = f"small_job_{record['kind']}_s" if name == "events" else "small_job_s"
                told.setdefault(key, _seconds(record["time"]) - began)
    return told


def _seconds(time: str | float) -> float:
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--no-job", action="store_true", help="leave the small job out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    void, figures = other_work(), measure()
    if not options.no_job:
        figures |= small_job()
    parts = ("initial_values_s", "calibration_s", "pinning_s", "small_job_s")
    figures["first_step_s"] = sum(figures.get(part, 0.0) for part in parts)
    print_report("startup", figures, emulated=not options.no_job, void=void, quiet=options.json)


if __name__ == "__main__":
    main()
