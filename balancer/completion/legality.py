"""What makes a plan illegal, each rule with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from balancer.cost.topology import Topology
from balancer.cost.workload import Workload
from balancer.errors import PlanError, ScheduleError
from balancer.memory.need import memory_need
from balancer.plan.equal import equal_pipelines
from balancer.plan.plan import PipelinePlan, Place, Plan, StagePlan
from balancer.plan.recompute import RecomputedUnits
from balancer.problem import Problem
from balancer.schedule.lowering import actions_of
from balancer.schedule.registry import schedule

FEW_STAGES = 64
"""Of a plan, so that the memory of each is counted by itself."""
MOST_MICRO_BATCHES = 2**14
"""Of one pipeline. Its schedule is a list with two actions for each, which a search for the best plan makes often."""


def check(plan: Plan, problem: Problem) -> None:
    """The rules that a plan must obey as it was written, its replicas not yet expanded."""
    try:
        schedule(plan.schedule)
    except ScheduleError as error:
        raise PlanError(error.key, error.value, error.rule, error.remedy) from None
    for p, pipeline in enumerate(plan.pipelines):
        _check_share(f"pipelines[{p}]", pipeline)
        _check_replicas(f"pipelines[{p}]", pipeline)
        for s, stage in enumerate(pipeline.stages):
            _check_stage(f"pipelines[{p}].stages[{s}]", stage, problem)
        _check_cover(f"pipelines[{p}]", pipeline, problem.workload)
    _check_shares(plan, problem.workload)
    _check_chips(plan, problem.topology)
    _check_shadow(plan, problem)


def check_chunks(plan: Plan) -> None:
    """Once each stage has its chunks: they lie as the schedule can order them, and ticks tell of all of them."""
    for p, pipeline in enumerate(plan.pipelines):
        try:
            schedule(plan.schedule).check_placement(pipeline.stage_of_chunk())
        except ScheduleError as error:
            raise PlanError(f"pipelines[{p}].{error.key}", error.value, error.rule, error.remedy) from None
        chunks, ticks = len(pipeline.chunks()), pipeline.ticks
        if ticks is not None and (len(ticks.chunks), len(ticks.hops)) != (chunks, chunks - 1):
            rule = f"ticks tell of each of {chunks} chunks and of the {chunks - 1} boundaries between them"
            found = {"chunks": len(ticks.chunks), "hops": len(ticks.hops)}
            raise PlanError(f"pipelines[{p}].ticks", found, rule, "leave ticks out, they are then what is expected")


def check_completed(plan: Plan, problem: Problem) -> None:
    """The rules about what completion filled in or kept: warm-ups, owners, memory."""
    for p, pipeline in enumerate(plan.pipelines):
        _check_warmups(f"pipelines[{p}]", pipeline, plan.schedule)
    _check_owners(plan, problem.workload)
    _check_memory(plan, problem)


def _check_share(key: str, pipeline: PipelinePlan) -> None:
    if pipeline.share % pipeline.micro_batch:
        rule = f"a share is whole micro-batches of {pipeline.micro_batch} sequences"
        near = max(1, pipeline.share // pipeline.micro_batch) * pipeline.micro_batch
        raise PlanError(f"{key}.share", pipeline.share, rule, f"use {near} or another micro_batch")
    if pipeline.micro_batches > MOST_MICRO_BATCHES:
        rule = f"is more than {MOST_MICRO_BATCHES} micro-batches of {pipeline.micro_batch} in a step"
        raise PlanError(f"{key}.share", pipeline.share, rule, "lower it, or raise micro_batch")


def _check_replicas(key: str, pipeline: PipelinePlan) -> None:
    if pipeline.replicas > 1 and any(stage.chips or stage.owns for stage in pipeline.stages):
        rule = "replicas of a pipeline cannot share its chips or its owned units"
        remedy = "leave out chips and owns, or write the pipelines one by one"
        raise PlanError(f"{key}.replicas", pipeline.replicas, rule, remedy)


def _check_shares(plan: Plan, workload: Workload) -> None:
    shares = [pipeline.share * pipeline.replicas for pipeline in plan.pipelines]
    missing = workload.global_batch - sum(shares)
    if missing:
        rule = f"the shares of all pipelines sum to the global batch of {workload.global_batch}, not {sum(shares)}"
        remedy = f"hand out {missing} more sequences" if missing > 0 else f"hand out {-missing} fewer sequences"
        raise PlanError("pipelines.share", shares, rule, remedy)


def _check_stage(key: str, stage: StagePlan, problem: Problem) -> None:
    try:
        pool = problem.topology.pool(stage.pool)
    except PlanError as error:
        raise PlanError(f"{key}.pool", stage.pool, error.rule, error.remedy) from None
    if pool.tp not in (None, stage.tp):
        rule = f"pools.{pool.name}.tp is {pool.tp}"
        raise PlanError(f"{key}.tp", stage.tp, rule, f"use tp {pool.tp}, or set pools.{pool.name}.tp to auto")
    if stage.precision not in (None, pool.precision):
        rule = f"the chips of pool {pool.name} compute in {pool.precision}"
        remedy = f"leave it out, or set pools.{pool.name}.precision to {stage.precision}"
        raise PlanError(f"{key}.precision", stage.precision, rule, remedy)
    if reason := problem.legal_tp(stage.tp):
        raise PlanError(f"{key}.tp", stage.tp, reason, "use a tp that divides the model's heads")
    _check_strategies(key, stage, problem.workload)
    if stage.tp > pool.count:
        rule = f"pool {pool.name} has {pool.count} chips"
        raise PlanError(f"{key}.tp", stage.tp, rule, f"use at most tp {pool.count}")
    if isinstance(stage.recompute, RecomputedUnits) and stage.recompute.count > len(stage.unit_indices()):
        units = len(stage.unit_indices())
        rule = f"counts {stage.recompute.count} units, and the stage has {units}"
        raise PlanError(f"{key}.recompute", stage.recompute.model_dump(), rule, f"count at most {units} in all")
    if stage.tp > pool.chips_per_host and pool.tp is None:
        rule = f"a tp group stays on one host ({pool.chips_per_host} chips each) unless its pool says so"
        raise PlanError(f"{key}.tp", stage.tp, rule, f"use at most tp {pool.chips_per_host}")


def _check_strategies(key: str, stage: StagePlan, workload: Workload) -> None:
    for name, value in stage.strategies().items():
        if reason := workload.refused.get(name):
            raise PlanError(f"{key}.{name}", value, reason, "leave it out")
    if stage.sequence_parallel and stage.tp == 1:
        rule = "tokens are cut over the chips of a group, and tp 1 is one chip"
        raise PlanError(f"{key}.sequence_parallel", True, rule, "leave it out, or use a larger tp")
    if stage.sequence_parallel and workload.seq_len % stage.tp:
        rule = f"each chip holds as many tokens as any other, and tp {stage.tp} does not divide the {workload.seq_len}"
        remedy = f"leave it out, or use a data.seq_len that is a multiple of {stage.tp}"
        raise PlanError(f"{key}.sequence_parallel", True, rule, remedy)
    if stage.tp_slices > 1 and stage.tp == 1:
        rule = "a group sums one slice while the next computes, and tp 1 sums nothing"
        raise PlanError(f"{key}.tp_slices", stage.tp_slices, rule, "leave it out, or use a larger tp")
    if stage.tp_slices > workload.seq_len // stage.tp:
        rule = f"each slice has tokens of every chip, which has {workload.seq_len // stage.tp} of a sequence"
        raise PlanError(f"{key}.tp_slices", stage.tp_slices, rule, "use less: 2 to 4 hide most")
    if stage.experts == "spread" and (fault := _unspreadable(stage.tp, workload.experts)):
        raise PlanError(f"{key}.experts", stage.experts, *fault)


def _unspreadable(tp: int, experts: int) -> tuple[str, str] | None:
    """Why experts cannot be spread over the chips of a group, and what to do about it; None where they can."""
    if not experts:
        return "no layer of the model has experts", "leave it out"
    if tp == 1:
        return "experts are spread over the chips of a group, and tp 1 is one chip", "leave it out, or use a larger tp"
    if tp > experts:
        return f"a layer has {experts} experts, too few for tp {tp}", f"leave it out, or use at most tp {experts}"
    return None


def _check_cover(key: str, pipeline: PipelinePlan, workload: Workload) -> None:
    n = len(workload.units)
    for s, stage in enumerate(pipeline.stages):
        if not stage.units:
            rule = "a stage holds at least one chunk"
            raise PlanError(f"{key}.stages[{s}].units", [], rule, "give it units or leave it out")
        for begin, end in stage.owns or ():
            if not 0 <= begin < end <= n:
                rule = f"owned units are ranges [a, b) with 0 <= a < b <= {n}"
                raise PlanError(f"{key}.stages[{s}].owns", [begin, end], rule, "leave owns out")
    here = 0
    for chunk in pipeline.chunks():
        begin, end = chunk.units
        where = f"{key}.stages[{chunk.stage}].units"
        if begin >= end or begin < 0 or end > n:
            raise PlanError(
                where, [begin, end], f"a chunk is a range [a, b) with 0 <= a < b <= {n}", "correct the range"
            )
        if begin != here:
            fault = _in_no_stage(here, begin) if begin > here else f"unit {begin} is in two stages"
            raise PlanError(where, [begin, end], f"a pipeline has each unit once, but {fault}", f"begin at {here}")
        if begin not in workload.cuts:
            legal = min(workload.cuts, key=lambda cut: abs(cut - begin))
            raise PlanError(where, [begin, end], f"the model cannot be cut before unit {begin}", f"cut before {legal}")
        here = end
    if here != n:
        last = pipeline.chunks()[-1] if pipeline.chunks() else None
        where = f"{key}.stages[{last.stage}].units" if last else f"{key}.stages"
        rule = f"a pipeline has each unit once, but {_in_no_stage(here, n)}"
        raise PlanError(where, list(last.units) if last else [], rule, f"end at {n}")


def _in_no_stage(begin: int, end: int) -> str:
    return f"unit {begin} is in no stage" if end == begin + 1 else f"units {begin} to {end - 1} are in no stage"


def _check_chips(plan: Plan, topology: Topology) -> None:
    """Enough chips in every pool; chips written by hand exist, are as many as tp, on one host, and used once."""
    need = Counter[str]()
    used: dict[tuple[str, int], str] = {}
    for (p, s), stage in plan.stages():
        need[stage.pool] += stage.tp * plan.pipelines[p].replicas
        if stage.chips is not None:
            _check_own_chips(f"pipelines[{p}].stages[{s}].chips", stage, topology, used)
    for name, chips in need.items():
        count = topology.pool(name).count
        if chips > count:
            rule = f"pool {name} has {count} chips, the plan's stages there need {chips}"
            remedy = "use fewer stages or a smaller tp there, or a larger pool"
            raise PlanError(f"pools.{name}.count", count, rule, remedy)


def _check_shadow(plan: Plan, problem: Problem) -> None:
    """A pool that is to compute again what others do has a stage, and so has another. Without that pool, or alone with
    it, a plan is asked for as if nobody was to."""
    pool, pools = problem.workload.shadow, {pool.name for pool in problem.topology.pools}
    if pool not in pools or len(pools) == 1:
        return
    used = {stage.pool for _, stage in plan.stages()}
    if pool not in used:
        rule = f"a chip of pool {pool} is to compute again what others do (train.shadow), and no stage is there"
        raise PlanError("pipelines", sorted(used), rule, f"give {pool} a stage, or leave train.shadow out")
    if used == {pool}:
        rule = f"pool {pool} is to compute again what others do (train.shadow), and all stages are its own"
        raise PlanError("pipelines", [pool], rule, "give another pool a stage, or leave train.shadow out")


def _check_own_chips(key: str, stage: StagePlan, topology: Topology, used: dict[tuple[str, int], str]) -> None:
    pool, chips = topology.pool(stage.pool), list(stage.chips or ())
    if len(chips) != stage.tp or len(set(chips)) != len(chips):
        raise PlanError(key, chips, f"a stage of tp {stage.tp} has {stage.tp} different chips", "correct chips or tp")
    for chip in chips:
        if not 0 <= chip < pool.count:
            raise PlanError(key, chips, f"pool {pool.name} has chips 0 to {pool.count - 1}", f"leave out {chip}")
        if (pool.name, chip) in used:
            rule = f"a chip serves one stage, and {used[pool.name, chip]} has chip {chip} too"
            raise PlanError(key, chips, rule, "choose another chip")
        used[pool.name, chip] = key
    hosts = {pool.host_of(chip) for chip in chips}
    if len(hosts) > 1 and stage.tp <= pool.chips_per_host:
        rule = f"a tp group stays on one host ({pool.chips_per_host} chips each)"
        raise PlanError(key, chips, rule, "choose chips of one host")


def _check_warmups(key: str, pipeline: PipelinePlan, name: str) -> None:
    try:
        actions_of(pipeline, name)
    except ScheduleError as error:
        raise PlanError(f"{key}.{error.key}", error.value, error.rule, error.remedy) from None


def _check_owners(plan: Plan, workload: Workload) -> None:
    owners = Counter[int]()
    for (p, s), stage in plan.stages():
        foreign = sorted(set(stage.owned_units()) - set(stage.unit_indices()))
        if foreign:
            rule = f"a stage owns only units that it holds, and unit {foreign[0]} is elsewhere"
            raise PlanError(f"pipelines[{p}].stages[{s}].owns", stage.owns, rule, "leave owns out")
        owners.update(stage.owned_units())
    for u in range(len(workload.units)):
        if owners[u] != 1:
            rule = f"each unit has exactly one owner, and unit {u} has {owners[u]}"
            raise PlanError("pipelines.stages.owns", u, rule, "leave owns out, the plan is then completed")


def _told_apart(plan: Plan, workload: Workload) -> Iterator[Place]:
    """Its stages; of many, one of those whose pipelines are equal and that own as many units of each kind."""
    few, seen = sum(len(pipeline.stages) for pipeline in plan.pipelines) <= FEW_STAGES, set[object]()
    for equal in equal_pipelines(plan):
        for p in equal:
            for s, stage in enumerate(plan.pipelines[p].stages):
                kinds = sorted(workload.units[unit].kind for unit in stage.owned_units())
                key = (p, s) if few else (equal[0], s, *kinds)
                if key not in seen:
                    seen.add(key)
                    yield p, s


def _check_memory(plan: Plan, problem: Problem) -> None:
    for p, s in _told_apart(plan, problem.workload):
        stage = plan.pipelines[p].stages[s]
        pool, need = problem.topology.pool(stage.pool), memory_need(plan, (p, s), problem)
        if need.total > pool.memory_bytes:
            rule = f"needs {need}, a chip of {pool.name} has {pool.memory_limit}"
            ways = "give the stage fewer units, a larger tp, or the pipeline a smaller micro_batch or warmup"
            remedy = ways if stage.recompute == "full" else f"{ways}, or keep less: recompute: full"
            if need.shadow:
                remedy = f"{ways}, name a pool with more memory in train.shadow.pool, or leave train.shadow out"
            raise PlanError(f"pipelines[{p}].stages[{s}]", list(stage.units), rule, remedy)
