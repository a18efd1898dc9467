"""What a chip's kernels lose by their shapes: the prior for chips that nobody has measured.

A matrix product's efficiency saturates. What it loses grows as its dimensions shrink: weights are read once for each
micro-batch however few its tokens, what products read and give moves through memory however narrow a tensor-parallel
share is, and a kernel takes its time to start however little it does. So a unit's time is that of its FLOPs at the rate
of a large product, plus that of its bytes at the rate of the memory, plus launches; collectives take a latency each.
"""

from __future__ import annotations

from typing import NamedTuple


class Kernels(NamedTuple):
    """The fitted constants: what data sheets do not tell. They are the same for all chips, models and layouts.

    products  of the rate of a large product by itself, what products reach between the others of a step
    squares   of that, what attention's fused square reaches
    sweeps    how often a forward's element-wise operators move what is kept for backward, at the memory's full rate
    launch_s  seconds that a unit's kernels wait for each other in a forward, whatever they do
    ring      of the interconnect's rate, what a tensor-parallel collective reaches
    ring_s    latency of a collective
    network   of the rate between hosts, what messages and sums reach
    step_s    seconds of a step in which no kernel runs
    """

    products: float
    squares: float
    sweeps: float
    launch_s: float
    ring: float
    ring_s: float
    network: float
    step_s: float


FITTED = Kernels(
    products=0.925,
    squares=0.80,
    sweeps=4.0,
    launch_s=220e-6,
    ring=0.55,
    ring_s=350e-6,
    network=0.67,
    step_s=0.069,
)
"""By `python -m benchmarks.published --data CSV --fit`."""
