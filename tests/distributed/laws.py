"""What "the same training" means, in numbers (design, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """Largest deviations from the plain float32 model.

    `gradient` is per tensor and by norm, relative to the larger of the tensor's own gradient and `floor` times the
    whole one; `loss` and `norm` are relative, per step.
    """

    gradient: float
    floor: float
    loss: float
    norm: float


TOLERANCES = {
    "float32": Tolerance(gradient=1e-5, floor=1e-4, loss=5e-6, norm=5e-5),
    "bfloat16": Tolerance(gradient=3e-2, floor=1e-2, loss=2e-3, norm=5e-2),
    "float16": Tolerance(gradient=4e-3, floor=1e-2, loss=3e-4, norm=7e-3),
}


@dataclass(frozen=True)
class Worst:
    """The largest relative deviation and where it is."""

    deviation: float
    place: str


def tensor_deviation(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], floor: float) -> Worst:
    """Law 1, over all tensors; also for whatever else is kept per tensor."""
    assert found.keys() == wanted.keys()
    total = np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in wanted.values()))
    worst = Worst(0.0, "")
    for name, gradient in wanted.items():
        size = max(float(np.linalg.norm(gradient.astype(np.float64))), floor * float(total))
        difference = found[name].astype(np.float64) - gradient
        worst = max(worst, Worst(float(np.linalg.norm(difference)) / size, name), key=lambda one: one.deviation)
    return worst


def series_deviation(found: Sequence[float], wanted: Sequence[float]) -> Worst:
    """Law 2, over all steps of a loss or a gradient norm."""
    assert len(found) == len(wanted)
    deviations = [abs(one - other) / abs(other) for one, other in zip(found, wanted, strict=True)]
    step = int(np.argmax(deviations))
    return Worst(deviations[step], f"step {step}")
