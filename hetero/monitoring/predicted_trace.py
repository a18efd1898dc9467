"""A predicted step as a run would trace it, but for what only a run knows: a row for each stage, its first rank's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from balancer.plan.plan import StagePlan, stage_ranks
from balancer.schedule.action import Action, Kind
from balancer.simulate.prediction import Prediction
from hetero.monitoring.errors import MonitorError
from hetero.monitoring.trace import Trace

_AWAITED = {Kind.F: "activation", Kind.B: "gradient", Kind.I: "gradient"}
_MICROSECOND = 1e-6


def write_prediction(prediction: Prediction, path: Path, pool_names: Mapping[str, str]) -> None:
    """As `Trace` writes. Raises MonitorError where the file cannot be written."""
    try:
        trace = Trace(path, {pool: f"{name}, predicted" for pool, name in pool_names.items()})
        for (p, s), stage in prediction.plan.stages():
            rank = stage_ranks(prediction.plan, p, s)[0]
            trace.add_rank(str(rank), _host(prediction, stage, rank.index), 0, tuple(_spans(prediction, (p, s))))
        trace.close()
    except OSError as error:
        rule = f"must be writable ({error.strerror})"
        raise MonitorError("--trace", str(path), rule, "choose another file") from None


def _host(prediction: Prediction, stage: StagePlan, chip: int) -> str:
    return f"{stage.pool}@{prediction.scenario.topology.pool(stage.pool).host_of(chip)}"


def _spans(prediction: Prediction, place: tuple[int, int]) -> Iterator[tuple[str, float, float]]:
    """Actions, and what is waited for between them."""
    free_at = 0.0
    for action, start, end in prediction.spans[place]:
        if start - free_at > _MICROSECOND:
            yield _wait(action), free_at, start - free_at
        yield _label(action), start, end - start
        free_at = end


def _label(action: Action) -> str:
    kind, chunk, micro_batch, _ = action
    return kind.value if kind is Kind.STEP else f"{kind.value} {chunk}.{micro_batch}"


def _wait(action: Action) -> str:
    if action.kind is Kind.STEP:
        return "wait sync"
    return f"wait {_AWAITED.get(action.kind, 'weights')} {action.chunk}.{action.micro_batch}"
