"""What any view shows of a run: figures of the newest step as `metrics.jsonl` has them, and what became of the run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from backends.options import EmulateOptions
from balancer.completion.idle import Idle, used_chips
from balancer.plan.equal import equal_pipelines, numbered
from balancer.plan.plan import Plan
from hetero.monitoring.follow import Follower, Point
from hetero.monitoring.journal import Record
from hetero.monitoring.links import LinkStatus, link_statuses
from hetero.monitoring.metrics_line import MetricsLine, PoolFigures, StageFigures
from hetero.monitoring.shadow_status import ShadowStatus
from hetero.monitoring.shapes import PLANNED, fits
from hetero.words.pool import Pool

Ended = Literal["finished", "failed", "interrupted"]
StateName = Literal["waiting", "starting", "running", "silent"] | Ended
ENDS: tuple[Ended, ...] = get_args(Ended)
STARTS = ("started", "host_ready", "measuring", "planned", "configured")
Numbers = tuple[int, ...]
SILENT_AFTER_S = 30.0
SILENT_AFTER_STEPS = 10
SILENT_AT_START_S = 600.0  # building a large model takes its time


@dataclass(frozen=True)
class PoolStatus:
    """One pool in the newest step; before the first step its figures are 0. `exposed_s` is what a step's bridge costs:
    seconds that a rank of the pool waited for it. `optimizer` is a part of `busy`, and `data_wait` of `other`: older
    runs do not tell them."""

    pool: Pool
    capacity_tokens_per_s: float
    tokens_per_s: float
    tflops_per_chip: float
    mfu: float
    busy: float
    bubble: float
    bridge_wait: float
    other: float
    exposed_s: float
    sent_bytes_per_s: float
    received_bytes_per_s: float
    peak_memory_bytes: int
    idle_chips: int = 0
    optimizer: float | None = None
    data_wait: float | None = None

    @property
    def name(self) -> str:
        return self.pool.name

    @property
    def emulated(self) -> bool:
        return self.pool.emulated

    @property
    def size(self) -> str:
        """Such as "3 x A800-80G, 1 idle"."""
        return self.pool.size + (f", {self.idle_chips} idle" if self.idle_chips else "")


@dataclass(frozen=True)
class StageStatus:
    """One stage in the newest step, by its slowest rank (such as `nvidia:1`) on its host; of equal pipelines the
    slowest. `name` is such as 0.1, and 0-7.1 for stage 1 of eight equal pipelines."""

    name: str
    pipeline: int
    stage: int
    pool: str
    forward_s: float
    backward_s: float
    weight_s: float
    wait_s: float
    slowest_rank: str
    host: str

    @property
    def compute_s(self) -> float:
        return self.forward_s + self.backward_s + self.weight_s


@dataclass(frozen=True)
class RunStatus:
    """`step` counts the finished steps of `steps`; `shadow` is the newest; `series` and `evaluations` are for charts;
    `events` are the newest, oldest first; `overruns` counts steps among the recent ones; `failure` says why the run
    ended; `equal` are the numbers of the plan's pipelines, those of equal ones together."""

    name: str
    state: StateName
    emulated: bool
    link_ratio: float | None
    epoch: int
    step: int
    steps: int | None
    time: float
    loss: float | None
    grad_norm: float | None
    lr: float | None
    step_s: float
    tokens_per_s: float
    goodput: float | None
    overruns: int
    restarts: int
    unreadable: int
    failure: str | None
    pools: tuple[PoolStatus, ...]
    links: tuple[LinkStatus, ...]
    stages: tuple[StageStatus, ...]
    plan: Plan | None
    equal: tuple[Numbers, ...]
    idle: tuple[Idle, ...]
    shadow: ShadowStatus | None
    series: tuple[Point, ...]
    evaluations: tuple[Point, ...]
    events: tuple[Record, ...]

    @property
    def label(self) -> str | None:
        """What is to be said wherever a figure of this run is shown; None for real chips."""
        if not self.emulated:
            return None
        ratio = "" if self.link_ratio is None else f" (link_ratio {self.link_ratio:.3g})"
        return f"emulated chips{ratio}: modelled figures, not measurements of hardware"

    @property
    def seconds_left(self) -> float | None:
        if self.steps is None or not self.series or self.state in ENDS:
            return None
        return (self.steps - self.step) * statistics.median(point.step_s for point in self.series[-10:])


def status(follower: Follower, now: float | None = None) -> RunStatus:
    """The run as last polled. `now` (unix time) tells whether it has fallen silent."""
    job, plan = follower.job, follower.plan
    last: Mapping[str, Any] = follower.last or {}
    equal = tuple(equal_pipelines(plan)) if plan else ()
    return RunStatus(
        name=str(job.get("name") or follower.run_dir.resolve().name),
        state=_state(follower, time.time() if now is None else now),
        emulated=bool(last.get("emulated", any(pool.emulated for pool in _declared(follower).values()))),
        link_ratio=last.get("link_ratio"),
        epoch=int(last.get("epoch") or (plan.epoch if plan else 0)),
        step=last["step"] + 1 if last else 0,
        steps=(job.get("train") or {}).get("steps"),
        time=_heard_at(follower),
        loss=last.get("loss"),
        grad_norm=last.get("grad_norm"),
        lr=last.get("lr"),
        step_s=last.get("step_s") or 0.0,
        tokens_per_s=last.get("tokens_per_s") or 0.0,
        goodput=last.get("goodput"),
        overruns=sum(bool(record.get("overrun")) for record in follower.recent),
        restarts=follower.restarts,
        unreadable=follower.unreadable,
        failure=_failure(follower),
        pools=_pools(follower, last),
        links=_links(follower, [last]),
        stages=_stages(follower, last, equal),
        plan=plan,
        equal=equal,
        idle=_idle(follower),
        shadow=ShadowStatus.of(follower.shadowed),
        series=tuple(follower.series()),
        evaluations=tuple(follower.evaluations()),
        events=tuple(follower.events),
    )


def typical_pools(follower: Follower) -> tuple[PoolStatus, ...]:
    """The pools with the medians of the recent steps of this plan epoch, without its first one, which warms up."""
    return _pools(follower, _median(_settled(follower)))


def typical_links(follower: Follower) -> tuple[LinkStatus, ...]:
    """The links with the medians of the same steps."""
    return _links(follower, _settled(follower))


def typical_stages_s(follower: Follower) -> dict[tuple[int, int], float]:
    """By (pipeline, stage), what its slowest rank computed in a step: the median of the same steps."""
    return _of_stages(follower, _computed_s)


def typical_waits_s(follower: Follower) -> dict[tuple[int, int], float]:
    """The same of what that rank waited for others and for bytes."""
    return _of_stages(follower, lambda stage: stage.get("wait_s") or 0.0)


def _computed_s(stage: StageFigures) -> float:
    return sum(part or 0.0 for part in (stage.get("forward_s"), stage.get("backward_s"), stage.get("weight_s")))


def _of_stages(follower: Follower, seconds: Callable[[StageFigures], float]) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], list[float]] = {}
    for record in _settled(follower):
        for stage in record.get("stages") or ():
            found.setdefault((stage["pipeline"], stage["stage"]), []).append(seconds(stage))
    return {place: statistics.median(told) for place, told in found.items()}


def typical_step_s(follower: Follower) -> float | None:
    """The median of the same steps' seconds; None before the first step."""
    return _median(_settled(follower)).get("step_s")


def time_scale(follower: Follower) -> float | None:
    """How much slower emulated chips and links ran than those they stand for; None where nobody said."""
    return _planned_by(follower).get("time_scale")


def calibrated(follower: Follower) -> list[Record]:
    """What of chips was measured before the plan was made: a row per pool, tp and kind; none where nothing was."""
    return list(_planned_by(follower).get("calibrated") or ())


def rated(follower: Follower) -> list[Record]:
    """What chips do in a second, as was measured before the plan was made: a row per rate; none where nothing was."""
    return list(_planned_by(follower).get("rates") or ())


def probed(follower: Follower) -> list[Record]:
    """The links that were measured before the plan was made: a row per direction; none where nothing was."""
    return list(_planned_by(follower).get("probed") or ())


def _planned_by(follower: Follower) -> Record:
    """What the newest plan was made with."""
    told = (follower.last_of_kind.get("planned") or {}).get("data") or {}
    return told if fits(told, PLANNED) else {}


def _settled(follower: Follower) -> list[MetricsLine]:
    epoch = follower.last and follower.last.get("epoch")
    records = [record for record in follower.recent if record.get("epoch") == epoch]
    return records[1:] or records


def _median(records: Sequence[MetricsLine]) -> Mapping[str, Any]:
    """The medians of a step's seconds and of all figures of its pools, which are those of the last."""
    if not records:
        return {}
    figures: dict[tuple[str, str], list[float]] = {}
    for record in records:
        then = record.get("pools") or {}
        for name, pool in ((name, then[name]) for name in records[-1].get("pools") or {} if name in then):
            for key in (key for key in PoolFigures.__annotations__ if key in pool):
                figures.setdefault((name, key), []).append(cast(float, pool.get(key)) or 0.0)
    pools: dict[str, Record] = {}
    for (name, key), values in figures.items():
        pools.setdefault(name, {})[key] = statistics.median(values)
    return {"step_s": statistics.median(record.get("step_s") or 0.0 for record in records), "pools": pools}


def _state(follower: Follower, now: float) -> StateName:
    end = _newest(follower, ENDS)
    if end is not None and _seq(end) > _seq(_newest(follower, STARTS)):
        return next(kind for kind in ENDS if kind == end["kind"])
    if not (follower.recent or follower.events):
        return "waiting"
    step_s = [record.get("step_s") or 0.0 for record in follower.recent]
    patience_s = max(SILENT_AFTER_S, SILENT_AFTER_STEPS * statistics.median(step_s)) if step_s else SILENT_AT_START_S
    if now - _heard_at(follower) > patience_s:
        return "silent"
    return "running" if step_s else "starting"


def _newest(follower: Follower, kinds: Sequence[str]) -> Record | None:
    found = [follower.last_of_kind[kind] for kind in kinds if kind in follower.last_of_kind]
    return max(found, key=_seq, default=None)


def _seq(event: Record | None) -> int:
    return -1 if event is None else int(event.get("seq", 0))


def _heard_at(follower: Follower) -> float:
    """Unix time of the newest line of either file."""
    newest = [records[-1].get("time") or 0.0 for records in (follower.recent, follower.events) if records]
    return max(newest, default=0.0)


def _failure(follower: Follower) -> str | None:
    end = _newest(follower, ENDS)
    if end is None or end["kind"] != "failed" or _seq(end) < _seq(_newest(follower, STARTS)):
        return None
    data = end.get("data") or {}
    error = data.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or data.get("cause") or "the run failed")


def _pools(follower: Follower, last: Mapping[str, Any]) -> tuple[PoolStatus, ...]:
    """In the order of the job file; pools that a plan leaves out too, with no figures."""
    measured: Mapping[str, Record] = last.get("pools") or {}
    pools = {name: Pool(name, "", "", 0) for name in measured} | _declared(follower)
    step_s = last.get("step_s") or 0.0
    idle = {one.pool: one.chips for one in _idle(follower)}
    names = dict.fromkeys([*_declared(follower), *measured])
    return tuple(_pool(pools[name], measured.get(name) or {}, step_s, idle.get(name, 0)) for name in names)


def _declared(follower: Follower) -> dict[str, Pool]:
    """By the job file; of an emulation no more than that there is one."""
    return {
        name: Pool(
            name,
            told.get("family", ""),
            told.get("chip", ""),
            told.get("count") or 0,
            told.get("chips_per_host") or 0,
            None if told.get("emulate") is None else EmulateOptions(),
        )
        for name, told in (follower.job.get("pools") or {}).items()
    }


def _idle(follower: Follower) -> tuple[Idle, ...]:
    """As it was told when the newest plan was made, and else as far as plan and pools say it."""
    event = _newest(follower, ("planned", "rebalanced")) or {}
    said = event.get("data") or {}
    told = said.get("idle") if fits(said, PLANNED) else None
    if told or follower.plan is None:
        known = [one.name for one in fields(Idle)]
        return tuple(Idle(**{key: one[key] for key in known if key in one}) for one in told or ())
    used = used_chips(follower.plan)
    left = ((pool, pool.count - used[pool.name]) for pool in _declared(follower).values())
    return tuple(Idle(pool.name, idle, pool.count) for pool, idle in left if idle > 0)


def _pool(pool: Pool, measured: Record, step_s: float, idle: int) -> PoolStatus:
    def figure(key: str) -> float:
        return float(measured.get(key) or 0.0)

    return PoolStatus(
        pool=pool,
        capacity_tokens_per_s=figure("capacity_tokens_per_s"),
        tokens_per_s=figure("tokens_per_s"),
        tflops_per_chip=figure("tflops_per_chip"),
        mfu=figure("mfu"),
        busy=figure("busy"),
        bubble=figure("bubble"),
        bridge_wait=figure("bridge_wait"),
        other=figure("other"),
        exposed_s=figure("bridge_wait") * step_s,
        sent_bytes_per_s=figure("bytes_sent") / step_s if step_s else 0.0,
        received_bytes_per_s=figure("bytes_received") / step_s if step_s else 0.0,
        peak_memory_bytes=int(figure("peak_memory_bytes")),
        idle_chips=idle,
        optimizer=None if measured.get("optimizer") is None else figure("optimizer"),
        data_wait=None if measured.get("data_wait") is None else figure("data_wait"),
    )


def _links(follower: Follower, records: Sequence[Mapping[str, Any]]) -> tuple[LinkStatus, ...]:
    return link_statuses(records, (pool.name for pool in _declared(follower).values() if pool.emulated))


def _stages(follower: Follower, last: Mapping[str, Any], equal: Sequence[Numbers]) -> tuple[StageStatus, ...]:
    """Of equal pipelines the stage that computed longest stands for all."""
    declared = _declared(follower)
    names = {number: numbered(numbers, counted=False) for numbers in equal for number in numbers}
    slowest: dict[str, StageStatus] = {}
    for stage in (_stage(stage, declared) for stage in last.get("stages") or ()):
        name = f"{names.get(stage.pipeline, stage.pipeline)}.{stage.stage}"
        if name not in slowest or stage.compute_s > slowest[name].compute_s:
            slowest[name] = replace(stage, name=name)
    return tuple(slowest.values())


def _stage(stage: Record, declared: Mapping[str, Pool]) -> StageStatus:
    pool, index = str(stage.get("pool", "")), int(stage.get("slowest_rank") or 0)
    return StageStatus(
        name=f"{stage['pipeline']}.{stage['stage']}",
        pipeline=stage["pipeline"],
        stage=stage["stage"],
        pool=pool,
        forward_s=stage.get("forward_s") or 0.0,
        backward_s=stage.get("backward_s") or 0.0,
        weight_s=stage.get("weight_s") or 0.0,
        wait_s=stage.get("wait_s") or 0.0,
        slowest_rank=f"{pool}:{index}",
        host=str(stage.get("host") or _host(pool, index, declared)),
    )


def _host(pool: str, index: int, declared: Mapping[str, Pool]) -> str:
    chips = declared[pool].host_chips if pool in declared else 0
    return f"{pool}@{index // (chips or index + 1)}"
