"""What is told of a run by its job file and its plan, which views do not read: `hetero.job.judged` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from balancer.search.pool_ledger import PoolLedger
from hetero.monitoring.waterfall import Term

_SOURCES = {
    "calibration": "what a calibration of these chips measured before the plan was made",
    "run": "what the run's own stages took, since nothing was calibrated for a plan by hand",
    "datasheet": "the chips' datasheets",
}


@dataclass(frozen=True)
class LedgerRow:
    """A part of the ideal throughput, as predicted and as measured."""

    term: str
    predicted: float
    measured: float


@dataclass(frozen=True)
class LedgerTable:
    """Where the speed went, or in `missing` why that cannot be said. `source` says whence the chips' speeds are that it
    is predicted by; `pools` has the parts of each pool's time, and of all."""

    rows: Sequence[LedgerRow] = ()
    source: str = ""
    predicted_step_s: float = 0.0
    measured_step_s: float = 0.0
    pools: Mapping[str, PoolLedger] = field(default_factory=dict)
    missing: str = ""

    @property
    def speeds(self) -> str:
        """The source in words."""
        return _SOURCES.get(self.source, self.source)


@dataclass(frozen=True)
class FlopsTable:
    """Where the FLOPs of pools went: by pool the terms of its waterfall or in words why there are none, and by what its
    MFU is to be multiplied for one that counts all of attention's square."""

    waterfalls: Mapping[str, Sequence[Term] | str] = field(default_factory=dict)
    whole_square: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""
