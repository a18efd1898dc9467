"""How fast the bridge is: against the wire, against memory, and beside what others offer.

    python -m benchmarks.bridge [--json] [--sizes 16 64 256] [--rounds N]

One way, from slots where a rank's tensors lie to slots where the other rank reads them, through both endpoints, with
headers, checksums, credit and acknowledgement. Every contender is ready before the clock runs; they take turns, in an
order that turns round, and figures are medians over the rounds. Ratios are to one plain TCP socket over loopback, or,
for what never leaves memory, to one memcpy by numpy, in the same run. `_cpu_s_per_GB` counts all processes that take
part, on both sides. `_busy_python`: both ranks compute in pure Python meanwhile, against the quiet figure.
`_beside_matmul`: every core multiplies matrices meanwhile, against TCP beside the same.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.carriers import Carrier, Gloo, Grpc, Memcpy, RayStore, Shm, Tcp, Zmq, ZmqEncrypted
from benchmarks.report import print_report
from benchmarks.usage import other_work

MIB = 1 << 20
PER_TURN_BYTES = 512 * MIB
SMALL_BYTES, SMALL_COUNT = 64 << 10, 200
CONTENDERS: tuple[type[Carrier], ...] = (Memcpy, Tcp, Zmq, ZmqEncrypted, Grpc, Shm, Gloo, RayStore)
CEILING = {Shm.name: Memcpy.name}
_MATMUL = "import torch; torch.set_num_threads(1); a = torch.rand(512, 512)\nwhile True: a @ a"


class Race:
    """Carriers of one message size, and what they have reached: bytes per second, seconds of processor per byte."""

    def __init__(self, kinds: Sequence[type[Carrier]], nbytes: int) -> None:
        self.nbytes, self.count = nbytes, max(2, PER_TURN_BYTES // nbytes)
        self.carriers = [kind(nbytes) for kind in kinds]
        for carrier in self.carriers:
            carrier.cross(nbytes, 2)

    def run(self, rounds: int, *, busy: bool = False) -> tuple[dict[str, float], dict[str, float]]:
        """Median rate of each, and its processor time per byte."""
        rates: dict[str, list[float]] = {carrier.name: [] for carrier in self.carriers}
        cpu = dict.fromkeys(rates, 0.0)
        for turn in range(rounds):
            for carrier in self.carriers if turn % 2 else self.carriers[::-1]:
                before = carrier.cpu_s()
                seconds = carrier.cross(self.nbytes, self.count, busy=busy)
                cpu[carrier.name] += carrier.cpu_s() - before
                rates[carrier.name].append(self.nbytes * self.count / seconds)
        carried = rounds * self.nbytes * self.count
        return {name: median(each) for name, each in rates.items()}, {
            name: each / carried for name, each in cpu.items()
        }

    def close(self) -> None:
        for carrier in self.carriers:
            carrier.close()


@contextlib.contextmanager
def race(kinds: Sequence[type[Carrier]], nbytes: int) -> Iterator[Race]:
    """Carriers that end with the block."""
    one = Race(kinds, nbytes)
    try:
        yield one
    finally:
        one.close()


def at_size(mib: int, rounds: int) -> dict[str, float]:
    """Rates and ratios of everybody at one size."""
    with race(CONTENDERS, mib * MIB) as each:
        rates, cpu = each.run(rounds)
    figures = {}
    for name, rate in rates.items():
        figures[f"{name}_{mib}MiB_GB_per_s"] = rate / 1e9
        if name not in (Tcp.name, Memcpy.name):
            ceiling = CEILING.get(name, Tcp.name)
            figures[f"{name}_{mib}MiB_vs_{ceiling}"] = rate / rates[ceiling]
        if name != RayStore.name:  # much of whose work is done by processes that serve others too
            figures[f"{name}_{mib}MiB_cpu_s_per_GB"] = cpu[name] * 1e9
    return figures


def under_load(rounds: int) -> dict[str, float]:
    """Beside Python in the ranks, and beside matrix products on every core."""
    with race((Tcp, Zmq), 64 * MIB) as each:
        quiet, _ = each.run(rounds)
        busy, _ = each.run(rounds, busy=True)
        with _matmul():
            beside, _ = each.run(rounds)
    return {
        "zmq_64MiB_busy_python": busy[Zmq.name] / quiet[Zmq.name],
        "zmq_64MiB_beside_matmul": beside[Zmq.name] / quiet[Zmq.name],
        "tcp_64MiB_beside_matmul": beside[Tcp.name] / quiet[Tcp.name],
    }


def latency_us(rounds: int) -> float:
    """Of one small message: from when it is handed over until its sender knows that it has arrived."""
    with race((Zmq,), SMALL_BYTES) as each:
        [zmq] = each.carriers
        return median(zmq.cross(SMALL_BYTES, SMALL_COUNT, window=1) / SMALL_COUNT for _ in range(rounds)) * 1e6


@contextlib.contextmanager
def _matmul() -> Iterator[None]:
    hogs = [subprocess.Popen([sys.executable, "-c", _MATMUL]) for _ in range(os.cpu_count() or 1)]
    time.sleep(2.0)
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256], help="in MiB")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    void = other_work()
    figures: dict[str, float] = {}
    for mib in options.sizes:
        figures |= at_size(mib, options.rounds)
    figures |= under_load(options.rounds)
    figures["zmq_64KiB_latency_us"] = latency_us(options.rounds)
    print_report("bridge", figures, emulated=False, void=void, quiet=options.json)


if __name__ == "__main__":
    main()
