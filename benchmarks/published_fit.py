"""The constants of `balancer.cost.kernels`, by robust least squares over measured steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balancer.completion.timing import PlanTiming
from balancer.cost.kernels import FITTED, Kernels
from benchmarks.published_cases import Case
from bridge.precision import ITEM_BYTES

Array = NDArray[np.float64]

GUESSED = Kernels(products=0.85, launch_s=300e-6, ring=0.8, ring_s=30e-6, hop_s=10e-6, step_s=0.05)
"""What somebody would say who has seen no run."""
_SPREAD = np.array([0.1, 1.0, 0.2, 1.0, 1.0, 1.0])
"""And how far off it may be, as a logarithm."""
_FRACTIONS = [Kernels._fields.index(name) for name in ("products", "ring")]
_TYPICAL, _STEP = 0.02, 0.02


def roughly_s(case: Case, kernels: Kernels) -> float:
    """A step by formula: its slopes are those of the simulated one, and far cheaper."""
    problem, pipeline = case.problem(kernels), case.plan.pipelines[0]
    times = PlanTiming(case.plan, problem).micro_batch(pipeline)
    stages, chunks = len(pipeline.stages), len(times.work_s) // len(pipeline.stages)
    each = [sum(times.work_s[s::stages]) for s in range(stages)]
    computed = (pipeline.micro_batches - 1) * max(each) + max(each) + (sum(each) - max(each)) / chunks
    return computed + 2 * sum(times.hop_s) + _sums_s(case, kernels) + kernels.step_s


def _sums_s(case: Case, kernels: Kernels) -> float:
    """Gradients to owners and parameters back, in the open, of the fullest stage."""
    tp, copies, pool = case.layout.tp, case.layout.replicas, case.pool
    held = [[case.workload.units[u].trained for u in stage.unit_indices()] for stage in case.plan.pipelines[0].stages]
    near, topology = min(copies, max(1, pool.chips_per_host // tp)), case.problem(kernels).topology
    rate = topology.inside_bytes_per_s(pool, 1 if copies == near else 2, near)
    each = case.workload.sent_gradient_bytes + ITEM_BYTES[pool.precision]
    around_s = 2 * topology.around_s(pool, copies) * max(map(len, held))
    return around_s + each * max(map(sum, held)) / tp * (1 - 1 / copies) / rate


@dataclass(frozen=True)
class Residuals:
    """Of cases, at `kernels`: logarithms of told over measured, and their slopes by the constants' logarithms."""

    kernels: Kernels
    errors: Array
    slopes: Array

    @staticmethod
    def of(cases: Sequence[Case], told_s: Sequence[float], kernels: Kernels = FITTED) -> Residuals:
        measured = np.array([case.run.step_s for case in cases], dtype=float)
        before = np.log([roughly_s(case, kernels) for case in cases])
        slopes = np.stack(
            [(np.log([roughly_s(c, near) for c in cases]) - before) / _STEP for near in _neighbours(kernels)], axis=1
        )
        return Residuals(kernels, np.log(np.array(told_s) / measured), slopes)

    def fitted(self, chosen: Array) -> Kernels:
        """By the `chosen` cases alone, and what is guessed. Whose error is far beyond the typical one counts little."""
        start, slopes, x = np.log(self.kernels), self.slopes[chosen], np.zeros(len(self.kernels))
        for _ in range(20):
            errors = self.errors[chosen] + slopes @ x
            weights = 1 / np.sqrt(1 + (errors / _TYPICAL) ** 2) / _TYPICAL
            told = np.concatenate([-self.errors[chosen] * weights, (np.log(GUESSED) - start) / _SPREAD])
            x = np.linalg.lstsq(np.vstack([slopes * weights[:, None], np.diag(1 / _SPREAD)]), told, rcond=None)[0]
            x[_FRACTIONS] = np.minimum(x[_FRACTIONS], -start[_FRACTIONS])
        return Kernels(*map(float, np.exp(start + np.clip(x, -0.5, 0.5))))


def _neighbours(kernels: Kernels) -> list[Kernels]:
    """Each with one constant a little larger."""
    factors = 1 + np.eye(len(kernels)) * (np.exp(_STEP) - 1)
    return [Kernels(*map(float, np.array(kernels) * row)) for row in factors]
