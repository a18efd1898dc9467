"""What a chip's kernels lose by their shapes: the prior for chips that nobody has measured.

A matrix product's efficiency saturates. What it loses grows as its dimensions shrink: weights are read once for each
micro-batch however few its tokens, what products read and give moves through memory however narrow a tensor-parallel
share is, and a kernel takes its time to start however little it does. So a unit's time is that of its FLOPs at the rate
of a large product, plus that of its bytes at the rate of the memory, plus launches; collectives take a latency each.
"""

from __future__ import annotations

from typing import NamedTuple

SQUARES = 0.7
"""Of the rate of products, what attention's fused square reaches: FlashAttention-2 has 50 to 73% of an A100's peak
(arXiv 2307.08691), where a large product has 87%."""
SWEEPS = 4
"""How often a forward's element-wise operators move what is kept for backward: that is written and read, and so is what
an operator between makes of it."""


class Kernels(NamedTuple):
    """The fitted constants: what data sheets do not tell. They are the same for all chips, models and layouts.

    products  of the rate of a large product by itself, what products reach between the others of a step
    launch_s  seconds that a unit's kernels wait for each other in a forward, whatever they do
    ring      of the interconnect's rate, what a tensor-parallel collective reaches
    ring_s    latency of a collective
    hop_s     of a sum of gradients or its parameters on the way back, what each copy adds to each unit's latency
    step_s    seconds of a step in which no kernel runs
    """

    products: float
    launch_s: float
    ring: float
    ring_s: float
    hop_s: float
    step_s: float


FITTED = Kernels(products=0.947, launch_s=297e-6, ring=0.600, ring_s=273e-6, hop_s=4.0e-6, step_s=0.0538)
"""By `python -m benchmarks.published --data CSV --fit`."""
