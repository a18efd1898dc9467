"""What a search reckons with before there is a plan, against what is counted of the finished plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from balancer.completion.completion import complete
from balancer.cost.times import datasheet_times
from balancer.memory.need import memory_need
from balancer.problem import Problem
from balancer.search.judge import PlanJudge
from balancer.search.proposer import Proposer
from balancer.search.search import search
from balancer.simulate.simulate import simulate
from balancer.simulate.sync import HeldParameters, expected_sync_s
from hetero.job.file.load import load_job
from hetero.job.planning.problem import problem
from tests.architecture.tree import ROOT
from tests.unit.balancer.cases import plan, pool, topology, workload

RUNS = [path for path in sorted((ROOT / "configs/runs").glob("*.yaml")) if path.stem in ("auto", "mixed")]
GIB = 2**30


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_memory_by_unit_is_that_of_the_finished_plan(path: Path) -> None:
    asked = problem(load_job(path))
    proposer = Proposer(asked, PlanJudge(asked))
    found = proposer.candidates(proposer.bounds_s, 2)
    assert len(found) > 3
    for candidate in found[:6]:
        plan, p = complete(candidate.plan, asked), 0
        for priced in candidate.groups:
            group, many = priced.group, len(candidate.micro_batches)
            places = proposer.pricer.places(group, plan.schedule, many, candidate.micro_batches[p])
            for s, (stage, place) in enumerate(zip(priced.stages, places, strict=True)):
                need = memory_need(plan, (p, s), asked)
                units = proposer.space.cost(stage.pool, stage.tp, group.micro_batch).need_bytes(place, stage)
                assert proposer.pricer.room.communicator_bytes(group, s) == need.communicators
                assert 0.85 < proposer.pricer.room.need_bytes(group, s, units) / need.total < 1.2
            p += group.pipelines


def test_a_chip_that_needs_no_communicator_keeps_no_room_for_one() -> None:
    """Half a GiB of state on a chip of one and a half, whose communicators would take one each."""
    roomy = pool("a", 1, gib=1.5)
    chips = topology(replace(roomy, chip=replace(roomy.chip, communicator_bytes=GIB)))
    work = workload(8, batch=4, parameters=4_000_000)
    asked = Problem(chips, work, datasheet_times(chips, work))
    assert search(asked).plan == complete(plan((4, [("a", 1, (0, 8))])), asked)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_the_sync_takes_what_is_expected_where_no_computation_hides_it(copies: int) -> None:
    chips = topology(pool("a", 1), pool("b", copies), bytes_per_s=1e6)
    work = workload(12, batch=1 + copies, parameters=1_000_000, gflops=1e-3)
    timed = Problem(chips, work, datasheet_times(chips, work))
    whole = plan((1, [("a", 1, (0, 12))]), *[(1, [("b", 1, (0, 12))])] * copies)
    found = simulate(complete(whole, timed), timed)
    held = [HeldParameters(1, {"a": 12_000_000}), HeldParameters(copies, {"b": 12_000_000})]
    assert found.sync_s == pytest.approx(expected_sync_s(held, chips, work), rel=0.01)
