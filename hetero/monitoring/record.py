"""From the reports of ranks to one line of `metrics.jsonl`.

Ranks report to their host, hosts to the driver: `merge_ranks` runs on the host, `merge_hosts` on the driver, so the
driver's work grows with hosts, never with ranks. All times are seconds, all sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from typing import cast

from hetero.monitoring.links import merge_crossed, step_links, total_bytes
from hetero.monitoring.metrics_line import MetricsLine, PoolFigures, ShadowFigures, StageFigures
from hetero.words.pool import Pool
from hetero.words.step import HostStep, ShadowErrors, StageTimes, StepReport, StepTotals

BUSY = ("forward_s", "backward_s", "weight_s", "optimizer_s")
SUMMED = (*BUSY, "bridge_wait_s", "bubble_s", "data_s")
UNSCALED = 1.0
"""The `loss_scale` of a step whose loss is not multiplied. No other is less."""
UNTOLD = StepTotals(nan, 0, nan, nan, nan, False, 0, 0)
"""Of a step of which no rank has told them."""


@dataclass(frozen=True)
class Assignment:
    """What a plan gives a pool to do. `flops_share` is its part of the model FLOPs of a step (pools sum to 1), `chips`
    how many of its chips the plan uses, `peak_flops` one chip's datasheet FLOP/s at the run's precision."""

    pool: Pool
    chips: int
    flops_share: float
    peak_flops: float


@dataclass(frozen=True)
class RunFacts:
    """What turns seconds into rates. `flops_per_token` counts forward and backward without recompute; emulated chips
    run `time_scale` times slower than their datasheet; `started` is unix time."""

    pools: Mapping[str, Assignment]
    flops_per_token: float
    started: float
    time_scale: float = 1.0
    link_ratio: float | None = None

    @property
    def emulated(self) -> bool:
        return any(assigned.pool.emulated for assigned in self.pools.values())


def merge_ranks(host: str, reports: Sequence[StepReport]) -> HostStep:
    """One step of a host, from the reports of all its ranks (same step, epoch and pool)."""
    first = reports[0]
    return HostStep(
        step=first.step,
        epoch=first.epoch,
        pool=first.rank.pool,
        host=host,
        ranks=len(reports),
        start=min(report.start for report in reports),
        end=max(report.end for report in reports),
        **{key: sum(getattr(report, key) for report in reports) for key in SUMMED},
        sent=merge_crossed(report.sent for report in reports),
        received=merge_crossed(report.received for report in reports),
        peak_memory_bytes=max(report.peak_memory_bytes for report in reports),
        overrun=any(report.overrun for report in reports),
        totals=_totals(reports),
        stages=_slowest_of_each_stage(_stage(host, report) for report in reports),
        spans={str(report.rank): report.spans for report in reports if report.spans} or None,
    )


def merge_hosts(hosts: Sequence[HostStep], facts: RunFacts, useful_s: float = 0.0) -> MetricsLine:
    """The `metrics.jsonl` line of one step, from the reports of all hosts. `useful_s` is what the steps before it took.

    A step takes as long as its slowest host says: times of two hosts' clocks are never subtracted.
    """
    step_s = max(host.end - host.start for host in hosts)
    totals = _totals(hosts) or UNTOLD
    tokens_per_s = totals.tokens / step_s if step_s > 0 else 0.0
    now = max(host.end for host in hosts)
    useful_s += 0.0 if totals.skipped else step_s
    line: MetricsLine = {
        "step": hosts[0].step,
        "time": now,
        "epoch": hosts[0].epoch,
        "loss": totals.loss,
        "grad_norm": totals.grad_norm,
        "lr": totals.lr,
        "loss_scale": totals.loss_scale,
        "skipped": totals.skipped,
        "tokens": totals.tokens,
        "consumed_tokens": totals.consumed_tokens,
        "counted_tokens": totals.counted_tokens,
    }
    if totals.eval_loss is not None:
        line["eval_loss"] = totals.eval_loss
    if totals.shadow is not None:
        line["shadow"] = _shadow(totals.shadow)
    line |= {
        "step_s": step_s,
        "tokens_per_s": tokens_per_s,
        "goodput": min(1.0, useful_s / max(now - facts.started, step_s, 1e-9)),
        "emulated": facts.emulated,
        "overrun": any(host.overrun for host in hosts),
        "link_ratio": facts.link_ratio,
        "pools": {
            name: _pool([host for host in hosts if host.pool == name], assigned, facts, tokens_per_s, step_s)
            for name, assigned in facts.pools.items()
        },
        "links": step_links(hosts, facts.pools, step_s),
        "stages": [_figures(stage) for stage in _slowest_of_each_stage(one for host in hosts for one in host.stages)],
    }
    return line


class Recorder:
    """Makes the lines of one epoch, whose steps come whole (see `LeaseBook`); `useful_s` carries goodput on."""

    def __init__(self, facts: RunFacts, useful_s: float = 0.0) -> None:
        self.facts = facts
        self.useful_s = useful_s

    def line(self, hosts: Sequence[HostStep]) -> MetricsLine:
        """Of the next step, from the reports of all hosts."""
        line = merge_hosts(hosts, self.facts, self.useful_s)
        self.useful_s += 0.0 if line["skipped"] else line["step_s"] or 0.0
        return line


def _totals(reports: Iterable[StepReport | HostStep]) -> StepTotals | None:
    return next((report.totals for report in reports if report.totals), None)


def _shadow(found: ShadowErrors) -> ShadowFigures:
    return cast(ShadowFigures, {key: value for key, value in asdict(found).items() if value is not None})


def _figures(stage: StageTimes) -> StageFigures:
    return cast(StageFigures, asdict(stage))


def _stage(host: str, report: StepReport) -> StageTimes:
    return StageTimes(
        pipeline=report.pipeline,
        stage=report.stage,
        pool=report.rank.pool,
        forward_s=report.forward_s,
        backward_s=report.backward_s,
        weight_s=report.weight_s,
        wait_s=report.bridge_wait_s + report.bubble_s,
        slowest_rank=report.rank.index,
        host=host,
    )


def _slowest_of_each_stage(stages: Iterable[StageTimes]) -> tuple[StageTimes, ...]:
    """A stage is as slow as its slowest rank, whose own figures stand for it."""
    slowest: dict[tuple[int, int], StageTimes] = {}
    for stage in stages:
        place = (stage.pipeline, stage.stage)
        if place not in slowest or stage.compute_s > slowest[place].compute_s:
            slowest[place] = stage
    return tuple(slowest[place] for place in sorted(slowest))


def _pool(
    hosts: list[HostStep], assigned: Assignment, facts: RunFacts, job_tokens_per_s: float, step_s: float
) -> PoolFigures:
    spent = {key: sum(getattr(host, key) for host in hosts) for key in SUMMED}
    busy_s = sum(spent[key] for key in BUSY)
    accounted_s = busy_s + spent["bubble_s"] + spent["bridge_wait_s"]
    # Clocks are read at slightly different moments; the parts must sum to 1 all the same.
    whole_s = max(step_s * sum(host.ranks for host in hosts), accounted_s, 1e-9)
    busy = busy_s / whole_s
    tokens_per_s = job_tokens_per_s * assigned.flops_share
    flops_per_chip = facts.flops_per_token * tokens_per_s / max(assigned.chips, 1)
    peak_flops = assigned.peak_flops / (facts.time_scale if assigned.pool.emulated else 1.0)
    return {
        "capacity_tokens_per_s": tokens_per_s / busy if busy > 0 else 0.0,
        "tokens_per_s": tokens_per_s,
        "tflops_per_chip": flops_per_chip / 1e12,
        "mfu": flops_per_chip / peak_flops if peak_flops > 0 else 0.0,
        "busy": busy,
        "optimizer": spent["optimizer_s"] / whole_s,
        "bubble": spent["bubble_s"] / whole_s,
        "bridge_wait": spent["bridge_wait_s"] / whole_s,
        "other": (whole_s - accounted_s) / whole_s,
        "data_wait": spent["data_s"] / whole_s,
        "bytes_sent": sum(total_bytes(host.sent) for host in hosts),
        "bytes_received": sum(total_bytes(host.received) for host in hosts),
        "peak_memory_bytes": max((host.peak_memory_bytes for host in hosts), default=0),
    }
