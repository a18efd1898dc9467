"""What a start costs before the first step, and what the replica check costs a step, at the size of an 8B model.

    python -m benchmarks.startup [--json] [--no-job]

What the host does is measured here and scaled to paper sizes. No chip was at hand: what chips do is by their data
sheets, of that chip of CHIPS which takes longest. The model has 8e9 parameters at tp 8, 1e9 for each rank, hidden 4096,
a vocabulary of 128,256, and is bfloat16.

- `initial_values_s`: 1e9 on the chip. What the operators read and write, counted, at the rate of its memory, or what it
  takes to launch them, 10 microseconds each, an assumption, whichever is longer;
- `initial_values_host_s`: 1e9 where the host makes them, on the cores that a rank has here, at most eight;
- `calibration_s`: five passes of each kind of unit at tp 1, 2, 4 and 8, 4,096 tokens each, at the chip's operations and
  usual efficiency, and filling embedding and head at tp 1 at the rate of its memory;
- `calibration_host_s`: measured, of a rank of a `cpu` pool: hidden 256, 512 tokens, the same vocabulary, float32;
- `pinning_s`: 1 GiB of slots, an assumption, over the rate at which their pages are first touched: a driver's own work
  on top of that is not in it;
- `replica_check_host_s`: 1e9 parameters over the rate of the check on this processor;
- `replica_check_s`: the same on a chip, as memory traffic, counted, for the chip whose share of a step is largest;
- `replica_check_share`: that over ten steps, as often as by default. A step is 6 operations a parameter and token for
  262,144 tokens (64 sequences of 4,096) at the datasheet's operations and usual efficiency;
- `small_job_s`: from `hetero train` of the quickstart to its first step here, with `small_job_KIND_s`, seconds until
  the event KIND; with emulated chips;
- `first_step_s`: initial values, calibration and pinning, and the small job's start where it was run;
- `first_step_host_s`: the same where the host makes the initial values.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import perf_counter

import torch

from backends.chip import ChipSpec, load_chip
from backends.cpu import CpuBackend
from balancer.cost.times import datasheet_times
from benchmarks.report import print_report
from benchmarks.traffic import Traffic
from benchmarks.usage import other_work
from bridge.port.slots import SlotRing
from bridge.rank import RankId
from hetero.engine.calibration import calibrate
from hetero.engine.expected import topology_of
from hetero.engine.state.replicas import weighted_bits
from hetero.engine.world import World
from hetero.layers.initial import CHIP_PAIRS, fill_normal
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.words.pool import Pool
from hetero.words.spec import CalibrationSpec

PARAMETERS, TOKENS = 1e9, 64 * 4096
MODEL = Dimensions(layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128_256)
SMALL = Dimensions(layers=1, hidden=256, heads=4, kv_heads=4, ffn=704, vocab=MODEL.vocab)
SLOT_BYTES, CHECK_EVERY, LAUNCH_S, PASSES = 1 << 30, 10, 10e-6, 5
CHIPS = ("A100-80G", "A800-80G", "H800", "Ascend-910B2", "Kunlun-P800")
QUICKSTART = Path(__file__).parents[1] / "configs" / "runs" / "quickstart.yaml"


def measure(rounds: int = 3) -> dict[str, float]:
    """The parts at paper sizes."""
    shape, region = (4096, MODEL.hidden), ((0, 4096), (0, MODEL.hidden))
    tensor = torch.empty(shape, dtype=torch.bfloat16)
    count = tensor.numel()
    values_s = _best(rounds, lambda: fill_normal(tensor, "w", 0, shape, region, 0.02))
    check_s = _best(rounds, lambda: weighted_bits(tensor, region))
    pages_s = _best(rounds, _touch)
    chips = [load_chip(name) for name in CHIPS]
    share, on_chip_s = max(_check_on(chip) for chip in chips)
    return {
        "initial_values_s": max(_values_on(chip) for chip in chips),
        "initial_values_host_s": PARAMETERS / count * values_s,
        "calibration_s": max(_calibration_on(chip) for chip in chips),
        "calibration_host_s": _calibration_here(),
        "pinning_s": SLOT_BYTES / _TOUCHED * pages_s,
        "replica_check_host_s": PARAMETERS / count * check_s,
        "replica_check_s": on_chip_s,
        "replica_check_share": share,
    }


def _values_on(chip: ChipSpec) -> float:
    tensor = torch.empty((16, 4096), dtype=torch.bfloat16)
    with Traffic() as traffic:
        fill_normal(tensor, "w", 0, (16, 4096), ((0, 16), (0, 4096)), 0.02)
    launches = PARAMETERS / (2 * CHIP_PAIRS) * len(traffic.operators)
    return max(traffic.bytes / tensor.numel() * PARAMETERS / chip.memory_bytes_per_s, launches * LAUNCH_S)


def _check_on(chip: ChipSpec) -> tuple[float, float]:
    """Of a step, and in seconds."""
    tensor = torch.empty((4, 4096), dtype=torch.bfloat16)
    region = ((0, 4), (0, 4096))
    weighted_bits(tensor, region)  # makes the keys, which are kept
    with Traffic() as traffic:
        weighted_bits(tensor, region)
    check_s = traffic.bytes / tensor.numel() * PARAMETERS / chip.memory_bytes_per_s
    step_s = 6 * PARAMETERS * TOKENS / chip.flops_per_s(_precision(chip))
    return check_s / CHECK_EVERY / step_s, check_s


def _calibration_on(chip: ChipSpec) -> float:
    precision = _precision(chip)
    topology = topology_of({"pool": Pool("pool", chip.family, chip.name, 8)}, {"pool": precision})
    workload = architecture(MODEL).workload(4096, 1, precision)
    times = datasheet_times(topology, workload)
    kinds = {unit.kind for unit in workload.units}
    passes_s = PASSES * sum(times.lookup("pool", tp, kind).total_s for tp in (1, 2, 4, 8) for kind in kinds)
    return passes_s + 2 * MODEL.vocab * MODEL.hidden * 4 / chip.memory_bytes_per_s  # reads and writes 2 bytes each


def _calibration_here() -> float:
    pool = {"pool": Pool("pool", "cpu", "cpu", 1)}
    spec = CalibrationSpec(
        model=SMALL, pools=pool, tensor_parallel={"pool": (1,)}, seq_len=512, micro_batch=1,
        precisions={"pool": "float32"}, repeats=PASSES - 2, time_scale=1.0,
    )  # fmt: skip
    world = World(CpuBackend(), RankId("pool", 0), 1)
    with tempfile.NamedTemporaryFile() as memory:
        world.join_here(os.open(memory.name, os.O_RDWR))
        began = perf_counter()
        calibrate(spec, world)
        took_s = perf_counter() - began
        world.close()
    return took_s


def _precision(chip: ChipSpec) -> str:
    return "bfloat16" if "bfloat16" in chip.peak_flops else "float16"


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
    rest = sum(figures.get(part, 0.0) for part in ("calibration_s", "pinning_s", "small_job_s"))
    figures["first_step_s"] = rest + figures["initial_values_s"]
    figures["first_step_host_s"] = rest + figures["initial_values_host_s"]
    print_report("startup", figures, emulated=not options.no_job, void=void, quiet=options.json)


if __name__ == "__main__":
    main()
