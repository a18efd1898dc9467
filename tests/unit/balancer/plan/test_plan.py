"""The plan as JSON, as chunks, as ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.completion.completion import complete
from balancer.errors import PlanError
from balancer.plan.plan import Plan, StagePlan, owner_of, stage_ranks
from balancer.problem import Problem
from bridge.rank import RankId
from tests.unit.balancer.cases import pipelines, plan, pool, topology, workload

TWO = plan((10, [("a", 2, (0, 3)), ("b", 1, (3, 8))]), (6, [("b", 1, (0, 2), (4, 8)), ("a", 2, (2, 4))]))
POOLS = topology(pool("a", 4), pool("b", 4))


def test_a_range_and_a_list_of_ranges_read_alike():
    text = '{"pipelines": [{"share": 16, "stages": [{"pool": "a", "units": %s}]}]}'
    assert Plan.from_json(text % "[0, 8]") == Plan.from_json(text % "[[0, 8]]") == plan((16, [("a", 1, (0, 8))]))


@given(case=pipelines(), epoch=st.integers(0, 9))
def test_json_round_trips(case, epoch):
    chips, work, written = case
    written = written.model_copy(update={"epoch": epoch, "job_fingerprint": "f[1, 2]"})
    for made in (written, complete(written, Problem(chips, work))):
        assert Plan.from_json(made.to_json()) == made


def test_json_with_chunks_chips_and_owners_round_trips():
    completed = complete(TWO, Problem(POOLS, workload()))
    assert Plan.from_json(completed.to_json()) == completed
    assert '"units": [[0, 2], [4, 8]]' in completed.to_json()


def test_strategies_are_written_where_they_are_asked_for():
    first = TWO.pipelines[0].stages[0]
    assert "sequence_parallel" not in TWO.to_json()
    asked = first.model_copy(update={"sequence_parallel": True})
    assert asked.model_dump()["sequence_parallel"] is True
    assert StagePlan.model_validate(asked.model_dump()) == asked
    assert StagePlan.model_validate(first.model_dump()) == first


def test_chunks_are_in_model_order():
    assert [tuple(c) for c in TWO.pipelines[1].chunks()] == [(0, 0, (0, 2)), (1, 1, (2, 4)), (2, 0, (4, 8))]
    assert TWO.pipelines[1].stage_of_chunk() == (0, 1, 0)


def test_ranks_of_a_stage():
    completed = complete(TWO, Problem(POOLS, workload()))
    assert stage_ranks(completed, 0, 0) == (RankId("a", 0), RankId("a", 1))
    assert stage_ranks(completed, 1, 1) == (RankId("a", 2), RankId("a", 3))
    with pytest.raises(PlanError, match="not complete"):
        stage_ranks(TWO, 0, 0)


def test_an_unknown_key_is_named_with_a_suggestion():
    with pytest.raises(PlanError) as error:
        Plan.from_json('{"pipelines": [{"share": 16, "stags": []}]}')
    assert error.value.key == "pipelines[0].stags"
    assert "'stages'" in error.value.remedy


def test_a_wrong_value_is_named():
    with pytest.raises(PlanError) as error:
        Plan.from_json('{"pipelines": [{"share": 0, "stages": [{"pool": "a", "units": [0, 8]}]}]}')
    assert (error.value.key, error.value.value) == ("pipelines[0].share", 0)
    with pytest.raises(PlanError) as error:
        Plan.from_json('{"version": 2, "pipelines": [{"share": 1, "stages": [{"pool": "a", "units": [0, 8]}]}]}')
    assert error.value.key == "version"


@given(pipelines=st.integers(1, 4), tied=st.booleans())
def test_owners_cover_every_unit_exactly_once(pipelines, tied):
    shape = [("a", 1, (0, 3)), ("b", 1, (3, 7), (7, 8))]
    work = workload(tied=((0, 7),) if tied else ())
    shares = [16 // pipelines + 16 % pipelines * (p == 0) for p in range(pipelines)]
    completed = complete(plan(*[(share, shape) for share in shares]), Problem(POOLS, work))
    owned = [u for p in completed.pipelines for s in p.stages for u in s.owned_units()]
    assert sorted(owned) == list(range(8))
    for u in range(8):
        p, s = owner_of(completed, u)
        assert u in completed.pipelines[p].stages[s].unit_indices()
    if tied:
        assert owner_of(completed, 7)[0] == owner_of(completed, 0)[0]


def test_owner_of_an_open_plan_is_refused():
    with pytest.raises(PlanError, match="no stage owns"):
        owner_of(TWO, 0)


def test_a_strategy_is_written_where_a_stage_asks_for_it() -> None:
    """So that plans without one read as they always did."""
    stages = [{"pool": "a", "units": [0, 2]}, {"pool": "a", "units": [2, 4], "optimizer": "host"}]
    plan = Plan.model_validate({"pipelines": [{"share": 4, "stages": stages}]})
    assert [stage.optimizer for stage in plan.pipelines[0].stages] == ["chip", "host"]
    assert plan.to_json().count("optimizer") == 1
    assert Plan.from_json(plan.to_json()) == plan
    assert "optimizer" not in plan.model_dump(mode="json")["pipelines"][0]["stages"][0]
    wrong = plan.to_json().replace('"host"', '"disk"')
    with pytest.raises(PlanError, match=r"pipelines\[0\].stages\[1\].optimizer.*'chip' or 'host'"):
        Plan.from_json(wrong)
