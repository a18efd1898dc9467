"""A comparison as plain data, for `--json`."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from hetero.align.alignment import Alignment


def as_data(found: Alignment) -> dict[str, Any]:
    """What is not finite is null."""
    told = {
        "aligned": not found.faults,
        "model": found.model,
        "against": found.reference,
        "emulated": found.emulated,
        "dtype": found.dtype,
        "tolerance": asdict(found.tolerance),
        "faults": [{**asdict(fault), "text": str(fault)} for fault in found.faults],
        "units": [asdict(unit) for unit in found.units],
    }
    finite: dict[str, Any] = _finite(told)
    return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
