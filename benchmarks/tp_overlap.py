"""What is left of a tensor-parallel group's collectives when they run beside products.

    python -m benchmarks.tp_overlap [--json] [--rounds N]

Two ranks hold a model in halves and go forward and backward with it. Each is a chip with a stream for products and one
for collectives (benchmarks/streams.py), whose rates are such that the collectives make a tenth of a step that waits for
each of them. `tp_exposed_plain` is the part of that step that they take, `tp_exposed` where weight gradients are made
while an input's is summed and the last product of each part is made in six slices, `tp_exposed_rows` where the stream
is cut along its tokens too: then nothing computes beside the gather that a part begins with. `_unsliced` has the
backward's way alone.

Ways take turns in every round; a figure is the median over the rounds of one less that round's step on links that take
no time over the way's own. `predicted_` is the same by a clock that stands still while a host works: what the order of
products and collectives alone makes of it. Links have rates and no delays.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.report import print_report
from benchmarks.streams import PacedCommunicator, Streams
from hetero.layers.group import TensorGroup
from hetero.models.dimensions import Dimensions
from tests.unit.hetero.models.standing_ranks import StandingRanks
from tests.unit.hetero.models.whole_model import build, loss_of, text

TP, SLICES, LENGTH = 2, 6, 128
DIMS = Dimensions(layers=8, hidden=128, heads=8, kv_heads=8, ffn=344, vocab=257)
PLAIN_SHARE = 0.1
FLOPS_PER_S = 2e8
"""Slow enough for a busy machine to be done with its arithmetic before the chip would."""
LATE = 0.005
"""Of a step, that the chip may wait for its host."""


@dataclass(frozen=True)
class Way:
    blocking: bool = False
    sequence_parallel: bool = False
    slices: int = 1


FREE = Way(blocking=True)
WAYS = {
    "tp_exposed_plain": FREE,
    "tp_exposed_unsliced": Way(),
    "tp_exposed": Way(slices=SLICES),
    "tp_exposed_rows": Way(sequence_parallel=True, slices=SLICES),
}


@dataclass(frozen=True)
class Step:
    """Seconds, and bytes that a chip sends."""

    seconds: float
    products_s: float
    sent_bytes: float
    late_s: float


def step(group: TensorGroup, way: Way, bytes_per_s: float, hostless: bool) -> Step:
    """One rank's, of one micro-batch, from when all are ready until its chip is done."""
    assert group.communicator is not None
    group.communicator.meet()
    streams = Streams(FLOPS_PER_S, bytes_per_s, _standing_still if hostless else perf_counter)
    paced = PacedCommunicator(group.communicator, streams, way.blocking)
    ranks = replace(group, communicator=paced, sequence_parallel=way.sequence_parallel, slices=way.slices)
    units, batch = build(DIMS, ranks), text(DIMS, 1, LENGTH)
    group.communicator.meet()
    began = streams.begin()
    with streams:
        loss_of(units, batch).backward()
        streams.synchronize()
    return Step(streams.ready_s() - began, streams.products_s, streams.sent_bytes, streams.late_s)


def _standing_still() -> float:
    return 0.0


def predict(ranks: StandingRanks) -> tuple[float, dict[str, float]]:
    """The rate at which collectives take their part of a plain step, and what is exposed in each way."""
    free = _slowest(ranks, FREE, inf, hostless=True)
    rate = free.sent_bytes / (free.products_s * PLAIN_SHARE / (1 - PLAIN_SHARE))
    seconds = {name: _slowest(ranks, way, rate, hostless=True).seconds for name, way in WAYS.items()}
    return rate, {name: 1 - free.seconds / took for name, took in seconds.items()}


def measure(rounds: int) -> tuple[dict[str, float], list[str]]:
    """The figures, and what makes them void."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = StandingRanks(Path(folder))
        try:
            rate, predicted = predict(ranks)
            figures, void = _figures([_round(ranks, rate) for _ in range(rounds)])
            return figures | {f"predicted_{name}": part for name, part in predicted.items()}, void
        finally:
            ranks.close()


def _round(ranks: StandingRanks, rate: float) -> dict[str, Step]:
    return {"free": _slowest(ranks, FREE, inf)} | {name: _slowest(ranks, way, rate) for name, way in WAYS.items()}


def _slowest(ranks: StandingRanks, way: Way, rate: float, hostless: bool = False) -> Step:
    return max(ranks.run(TP, step, way, rate, hostless), key=lambda one: one.seconds)


def _figures(found: list[dict[str, Step]]) -> tuple[dict[str, float], list[str]]:
    figures = {name: median(1 - one["free"].seconds / one[name].seconds for one in found) for name in WAYS}
    late = max(one.late_s / one.seconds for round_ in found for one in round_.values())
    figures |= {"step_s": median(one["free"].seconds for one in found), "late": late}
    return figures, [f"a chip waited for its host {late:.1%} of a step"] if late > LATE else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON object")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures, void = measure(options.rounds)
    print_report("tp_overlap", figures, emulated=True, void="; ".join(void) or None, quiet=options.json)


if __name__ == "__main__":
    main()
