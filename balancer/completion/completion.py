"""What a plan leaves open and how it is filled: chunks, precisions, which chips, what a schedule reckons with, how deep
a warm-up, who owns which unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from balancer.completion.chunks import lay_chunks
from balancer.completion.legality import check, check_chunks, check_completed
from balancer.completion.timing import fill_ticks
from balancer.completion.warmup import deepen
from balancer.cost.times import updates_per_s
from balancer.cost.topology import PoolSpec, Topology
from balancer.errors import PlanError
from balancer.plan.plan import Place, Plan, Range
from balancer.problem import Problem
from balancer.schedule.registry import schedule
from balancer.simulate.simulate import Prediction, simulate

_Changes = dict[Place, dict[str, object]]


def complete(plan: Plan, problem: Problem) -> Plan:
    """The plan that ranks obey: replicas expanded, chunks, precisions, chips, ticks, warm-ups and owners filled in.
    Warm-ups that were left open are as deep as hiding the links takes, where the times of all stages are known.
    Completing a completed plan changes nothing. Raises PlanError for every illegal plan."""
    return _completed(plan, problem)[0]


def predict(plan: Plan, problem: Problem) -> Prediction:
    """Of the plan, completed. Raises PlanError for every illegal plan."""
    whole, found = _completed(plan, problem)
    return found or simulate(whole, problem)


def _completed(plan: Plan, problem: Problem) -> tuple[Plan, Prediction | None]:
    """And what is predicted of it, if that was asked on the way."""
    check(plan, problem)
    plan = lay_chunks(plan, problem.workload)
    check_chunks(plan)
    written = [p for p, pipeline in enumerate(plan.pipelines) for _ in range(pipeline.replicas)]
    plan = fill_precisions(expand_replicas(plan), problem.topology)
    open_ = [place for place, stage in plan.stages() if stage.warmup is None]
    plan = fill_ticks(place_chips(plan, problem.topology), problem)
    try:
        return _owned(fill_warmups(plan), open_, problem)
    except PlanError as error:
        raise PlanError(_as_written(error.key, written), error.value, error.rule, error.remedy) from None


def _owned(plan: Plan, open_: Sequence[Place], problem: Problem) -> tuple[Plan, Prediction | None]:
    """With owners: those who update soonest, or, where they have no room for all that, as even as can be."""
    soonest = assign_owners(plan, problem)
    try:
        return _deepened(soonest, open_, problem)
    except PlanError:
        even = assign_owners(plan, problem, evenly=True)
        if even == soonest:
            raise
        return _deepened(even, open_, problem)


def _deepened(plan: Plan, open_: Sequence[Place], problem: Problem) -> tuple[Plan, Prediction | None]:
    """With warm-ups at `open_` that hide its links, and checked."""
    found = None
    if open_ and all(problem.knows(stage.pool, stage.tp) for _, stage in plan.stages()):
        plan, found = deepen(plan, open_, problem)
    check_completed(plan, problem)
    return plan, found


def _as_written(key: str, written: Sequence[int]) -> str:
    """The key of a pipeline as the plan had it before its replicas were written out."""
    return re.sub(r"^pipelines\[(\d+)\]", lambda found: f"pipelines[{written[int(found[1])]}]", key)


def expand_replicas(plan: Plan) -> Plan:
    """`replicas: n` written out as n pipelines."""
    pipelines = [p.model_copy(update={"replicas": 1}) for p in plan.pipelines for _ in range(p.replicas)]
    return plan.model_copy(update={"pipelines": tuple(pipelines)})


def place_chips(plan: Plan, topology: Topology) -> Plan:
    """Give every stage without chips the first free ones of its pool, larger tp groups first, each inside one host.
    A group larger than a host takes whole hosts first."""
    chips: dict[Place, tuple[int, ...]] = {}
    for pool in topology.pools:
        stages = [(place, stage) for place, stage in plan.stages() if stage.pool == pool.name]
        taken = {chip for _, stage in stages for chip in stage.chips or ()}
        hosts = (range(first, pool.count)[: pool.chips_per_host] for first in range(0, pool.count, pool.chips_per_host))
        free = [[chip for chip in host if chip not in taken] for host in hosts]
        for place, stage in sorted(stages, key=lambda found: -found[1].tp):
            chips[place] = stage.chips or _take(free, stage.tp, pool, place)
    return _update(plan, {place: {"chips": taken} for place, taken in chips.items()})


def _take(free: list[list[int]], tp: int, pool: PoolSpec, place: Place) -> tuple[int, ...]:
    """Out of the free chips by host, which are then free no more."""
    whole = [chip for host in free if len(host) == pool.chips_per_host for chip in host]
    rest = [chip for host in free if len(host) < pool.chips_per_host for chip in host]
    if tp > pool.chips_per_host and len(whole) + len(rest) >= tp:
        taken = tuple((whole + rest)[:tp])
        for host in free:
            host[:] = [chip for chip in host if chip not in taken]
        return taken
    for host in free:
        if len(host) >= tp:
            taken, host[:] = tuple(host[:tp]), host[tp:]
            return taken
    rule = f"pool {pool.name} has {pool.count} chips, {pool.chips_per_host} to a host"
    rule += f", of which {sum(map(len, free))} are free for this stage"
    remedy = "use fewer stages or a smaller tp there, or a larger pool"
    raise PlanError(f"pipelines[{place[0]}].stages[{place[1]}].tp", tp, rule, remedy)


def fill_precisions(plan: Plan, topology: Topology) -> Plan:
    """Each stage's is its pool's."""
    return _update(plan, {at: {"precision": topology.pool(stage.pool).precision} for at, stage in plan.stages()})


def fill_warmups(plan: Plan) -> Plan:
    """Those that the schedule has where nothing must be hidden."""
    changes: _Changes = {}
    for p, pipeline in enumerate(plan.pipelines):
        depths = schedule(plan.schedule).usual_warmups(pipeline.stage_of_chunk(), pipeline.micro_batches)
        for s, stage in enumerate(pipeline.stages):
            if stage.warmup is None:
                changes[p, s] = {"warmup": depths[s]}
    return _update(plan, changes)


def assign_owners(plan: Plan, problem: Problem, evenly: bool = False) -> Plan:
    """Each unit goes to one of its copies, so that all are through with their updates, and gradients with their way to
    owners, at about the same time: the largest first, each to where it is updated soonest (longest processing time
    first, on uniform machines: Gonzalez, Ibarra and Sahni 1977). `evenly` is as if all updated at one rate, so that
    they keep as much as each other; so are owners of whom some update in host memory, beside the next step. A unit that
    uses an earlier unit's weight follows it. Owners in the plan are kept as they are."""
    if any(stage.owns is not None for _, stage in plan.stages()):
        return _update(plan, {place: {"owns": stage.owns or ()} for place, stage in plan.stages()})
    evenly = evenly or len({stage.optimizer for _, stage in plan.stages()}) > 1
    per_s = {
        place: stage.tp if evenly else updates_per_s(problem.topology.pool(stage.pool).chip, stage)
        for place, stage in plan.stages()
    }
    units, follows = problem.workload.units, {later: first for first, later in problem.workload.tied}
    holders, owned, owner = _holders(plan, len(units)), dict.fromkeys(per_s, 0), dict[int, Place]()
    for u in sorted(range(len(units)), key=lambda u: (u in follows, -units[u].trained, u)):
        leader = owner[follows[u]][0] if u in follows else None
        able = [place for place in holders[u] if leader in (None, place[0])]
        done = {place: (owned[place] + units[u].trained) / per_s[place] for place in able}
        owner[u] = min(able, key=lambda place: (done[place], owned[place], place))
        owned[owner[u]] += units[u].trained
    return _update(plan, {place: {"owns": _ranges(u for u in sorted(owner) if owner[u] == place)} for place in owned})


def _holders(plan: Plan, units: int) -> list[list[Place]]:
    holders: list[list[Place]] = [[] for _ in range(units)]
    for place, stage in plan.stages():
        for u in stage.unit_indices():
            holders[u].append(place)
    return holders


def _ranges(units: Iterable[int]) -> tuple[Range, ...]:
    """Ascending units as maximal half-open ranges."""
    ranges: list[tuple[int, int]] = []
    for u in units:
        if ranges and ranges[-1][1] == u:
            ranges[-1] = (ranges[-1][0], u + 1)
        else:
            ranges.append((u, u + 1))
    return tuple(ranges)


def _update(plan: Plan, changes: _Changes) -> Plan:
    """The plan with fields of some stages replaced; the values are already in their validated form."""
    return plan.with_stages(lambda place, stage: stage.model_copy(update=changes.get(place, {})))
