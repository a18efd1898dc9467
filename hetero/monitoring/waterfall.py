"""Where the FLOPs of a pool's chips went: terms that multiply to its MFU.

The time of a step is built up from what the model's FLOPs take at the chips' peak. Each cause adds its time, and its
term is the time before it over the time with it: in (0, 1], and 1 where it costs nothing. What nobody has told apart is
one term.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from hetero.monitoring.errors import MonitorError

PRODUCTS, OPERATORS, TENSOR_PARALLEL, RECOMPUTE = "products", "other operators", "tensor parallel", "recompute"
BUBBLE, BRIDGE, OPTIMIZER, HOST = "bubble", "bridge", "optimizer", "host"


@dataclass(frozen=True)
class TimeSpent:
    """What a pool's chips did in a step, as parts of their time. `computing` are forwards and backwards, and the update
    too where that is not told apart (`optimizer` None); `host` is what nothing else accounts for."""

    computing: float
    optimizer: float | None
    bubble: float
    bridge: float
    host: float


@dataclass(frozen=True)
class Computing:
    """What is known of the time of forwards and backwards, as parts of it: matrix products and attention, what the
    ranks of a tensor-parallel group say to each other, and what is computed once more. None is not told apart."""

    products: float | None = None
    tensor_parallel: float | None = None
    recompute: float = 0.0


class Term(NamedTuple):
    """`left` is the part of the peak that this term and those before it leave; the last one's is the MFU."""

    name: str
    factor: float
    left: float


def waterfall(mfu: float, spent: TimeSpent, computing: Computing) -> tuple[Term, ...]:
    """Of an MFU above 0. Raises MonitorError where the chips were faster than the peak that it is measured by."""
    whole = spent.computing + (spent.optimizer or 0.0) + spent.bubble + spent.bridge + spent.host
    added = _inside(mfu, spent.computing / whole, computing, updates=spent.optimizer is None)
    added |= {BUBBLE: spent.bubble / whole, BRIDGE: spent.bridge / whole}
    if spent.optimizer is not None:
        added[OPTIMIZER] = spent.optimizer / whole
    added[HOST] = spent.host / whole
    steps = pairwise(accumulate(added.values(), initial=mfu))
    return tuple(Term(name, before / after, mfu / after) for name, (before, after) in zip(added, steps, strict=True))


def _inside(ideal: float, computed: float, known: Computing, updates: bool) -> dict[str, float]:
    """What forwards and backwards add to the model's FLOPs at the peak, as parts of the step. What was measured outside
    of the step takes no more than there is room for."""
    again = computed * known.recompute
    if ideal > computed - again:
        raise _faster_than_the_peak(ideal, computed - again)
    spoken = min(computed * (known.tensor_parallel or 0.0), computed - again - ideal)
    once = computed - again - spoken
    products = ideal if known.products is None else min(max(computed * known.products, ideal), once)
    apart = {
        PRODUCTS: known.products is not None, OPERATORS: False,
        TENSOR_PARALLEL: known.tensor_parallel is not None, OPTIMIZER: not updates,
    }  # fmt: skip
    together = ", ".join(name for name, told in apart.items() if not told)
    added = {PRODUCTS: products - ideal, together: once - products, TENSOR_PARALLEL: spoken, RECOMPUTE: again}
    return {name: part for name, part in added.items() if apart.get(name, True) or name == together}


def _faster_than_the_peak(ideal: float, computed: float) -> MonitorError:
    return MonitorError(
        "mfu",
        f"{ideal / max(computed, 1e-12):.3g} of the peak while computing",
        "a chip computes no faster than the peak of its data sheet",
        "correct peak_tflops in the chip's data sheet, or name the chip that the pool has",
    )
