"""Weights that a later unit uses too: what units have, seen from a chip that holds some of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from balancer.cost.workload import Workload


def parameters_with_tied(workload: Workload, units: Iterable[int]) -> list[int]:
    """Parameters of each unit; a unit that uses an earlier one's weight counts it where that one is not at hand."""
    return _with_tied(workload, units, [unit.parameters for unit in workload.units])


def trained_with_tied(workload: Workload, units: Iterable[int]) -> list[int]:
    """Those that train."""
    return _with_tied(workload, units, [unit.trained for unit in workload.units])


def _with_tied(workload: Workload, units: Iterable[int], sizes: Sequence[int]) -> list[int]:
    held = list(units)
    borrowed = {later: sizes[first] for first, later in workload.tied if first not in held}
    return [sizes[u] + borrowed.get(u, 0) for u in held]
