"""Reports of ranks to make records from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.options import EmulateOptions
from bridge.rank import RankId
from hetero.monitoring.record import Assignment, RunFacts, merge_ranks
from hetero.words.pool import Pool
from hetero.words.step import HostStep, ShadowErrors, Spans, StepReport, StepTotals

TOTALS = {
    "loss": 5.0, "tokens": 1000, "grad_norm": 1.2, "lr": 0.001, "loss_scale": 1.0, "skipped": False,
    "consumed_tokens": 4000,
    "counted_tokens": 900,
}  # fmt: skip

SHADOW = ShadowErrors(
    pipeline=0, stage=1, pool="b", by="a", micro_batch=2, unit=3, unit_kind="attention", value=2e-7, gradient=5e-7,
    tolerance=1e-5,
)  # fmt: skip
"""What "a" has found of a stage of "b"."""

POOLS = {
    "a": Pool("a", "cpu", "A", 2, emulate=EmulateOptions()),
    "b": Pool("b", "cpu", "B", 1, emulate=EmulateOptions()),
}


def rank_report(pool: str, index: int, *, totals: dict[str, Any] | None = None, **changes: Any) -> StepReport:
    """A step of one second: 0.7 s busy, 0.1 s each of bubble, bridge wait and sync. Pools "a" (two ranks) and "b" (one)
    send each other 10 bytes per rank, for which a rank waits 0.04 s, and 0.06 s for what it receives."""
    other, received = ("b", 5) if pool == "a" else ("a", 20)
    report: dict[str, Any] = {
        "step": 3, "epoch": 0, "rank": RankId(pool, index), "pipeline": 0, "stage": 0, "tp_rank": index,
        "start": 100.0, "end": 101.0, "forward_s": 0.2, "backward_s": 0.4, "weight_s": 0.0,
        "optimizer_s": 0.1, "bridge_wait_s": 0.1, "bubble_s": 0.1, "data_s": 0.05,
        "sent": {other: (10, 0.04)}, "received": {other: (received, 0.06)}, "peak_memory_bytes": 1000,
        "overrun": False,
    }  # fmt: skip
    return StepReport(**report | changes, totals=StepTotals(**totals) if totals else None)


def merged(reports: Sequence[StepReport]) -> HostStep:
    """As the first host of their pool merges them."""
    return merge_ranks(f"{reports[0].rank.pool}@0", reports)


def traced(pool: str, step: int, ranks: Sequence[Spans]) -> HostStep:
    """A step of a pool's first host, with what each of its ranks did."""
    return merged([rank_report(pool, index, step=step, spans=spans) for index, spans in enumerate(ranks)])


def facts(**changes: Any) -> RunFacts:
    """Two pools: "a" does 3/4 of the work on two chips, "b" the rest on one."""
    pools = {
        "a": Assignment(POOLS["a"], chips=2, flops_share=0.75, peak_flops=1e9),
        "b": Assignment(POOLS["b"], chips=1, flops_share=0.25, peak_flops=1e9),
    }
    values: dict[str, Any] = {"pools": pools, "flops_per_token": 1e5, "started": 99.0, "time_scale": 10.0}
    return RunFacts(**values | changes)
