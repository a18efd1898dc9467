"""What forwards and backwards are made of, and that the terms which follow are those of the data sheets."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.cost.stage_times import stage_time
from balancer.cost.times import datasheet_times, units_time
from balancer.plan.plan import Plan
from hetero.job.job import Job
from hetero.job.planning.computing import pool_work
from hetero.job.planning.problem import topology, workload
from hetero.models.flops import masked_flops
from hetero.models.options import load_preset
from hetero.monitoring.waterfall import Computing, TimeSpent, waterfall
from tests.unit.hetero.monitoring import synthetic

PLAN = Plan.model_validate(synthetic.plan())


def _job(real: str = "", vocab: int = 257) -> Job:
    """The pools of the plan, emulated but for one that is named."""
    job = synthetic.job()
    dims = load_preset("llama-tiny").model_dump() | {"vocab": vocab}
    job["model"] = {"dimensions": dims}
    if real:
        job["pools"][real] |= {"emulate": None}
    return Job.model_validate(job)


def _row(pool: str, tp: int, kind: str, seconds: float) -> dict[str, Any]:
    return {"pool": pool, "tp": tp, "kind": kind, "forward_s": seconds / 3, "backward_s": seconds * 2 / 3}


KINDS = ("embedding", "attention", "mlp", "head")


def test_a_model_s_flops_are_six_for_each_weight_and_token_and_half_of_attention_s_square() -> None:
    job, work = _job(), workload(_job())
    dims, tokens = job.model.resolve(), job.data.seq_len
    layer = dims.hidden * dims.head_dim * (2 * dims.heads + 2 * dims.kv_heads) + 3 * dims.hidden * dims.ffn
    weights = dims.layers * layer + dims.vocab * dims.hidden
    square = dims.layers * 4 * tokens * tokens * dims.heads * dims.head_dim
    counted = 3 * sum(unit.forward_flops for unit in work.units)
    assert counted == 6 * weights * tokens + 3 * square / 2
    assert 3 * sum(masked_flops(dims, tokens)) == 3 * square / 2
    assert {unit.kind for unit, masked in zip(work.units, masked_flops(dims, tokens), strict=True) if masked} == {
        "attention"
    }


@pytest.mark.parametrize(("recompute", "vocab"), [("none", 257), ("selective", 257), ("full", 257), ("none", 300_000)])
def test_an_emulated_pool_s_terms_are_its_data_sheet_s(recompute: str, vocab: int) -> None:
    """A step at which chips never wait: products and other operators leave the efficiency, collectives and what is
    computed again the rest."""
    plan = synthetic.plan()
    plan["pipelines"][1]["stages"][0]["recompute"] = recompute
    job, kunlun = _job(vocab=vocab), Plan.model_validate(plan).pipelines[1]
    chips, work = topology(job), workload(job)
    stage, sheets = kunlun.stages[0], datasheet_times(chips, work)
    plain_s, took_s = (
        kunlun.share * stage.tp * seconds.total_s
        for seconds in (
            units_time(sheets, work, "kunlun", stage.tp, stage.unit_indices()),
            stage_time(sheets, chips, work, stage, stage.unit_indices()),
        )
    )
    chip = chips.pool("kunlun").chip
    flops = 3 * kunlun.share * sum(unit.forward_flops for unit in work.units)
    mfu = flops / chip.peak_flops["float32"] / took_s
    computing = pool_work(job, Plan.model_validate(plan), [])["kunlun"].computing
    terms = waterfall(mfu, TimeSpent(1.0, 0.0, 0.0, 0.0, 0.0), computing)
    found = {term.name: term.factor for term in terms}
    assert found["products, other operators"] == pytest.approx(chip.efficiency)
    assert found["recompute"] <= plain_s / took_s * (1 + 1e-9)
    assert (found["recompute"] < 1 - 1e-9) is (recompute != "none" or vocab > 257), (
        "logits of many symbols are made again"
    )
    assert found["tensor parallel"] == pytest.approx(mfu / chip.efficiency / found["recompute"])
    assert found["tensor parallel"] < 1


def test_backwards_in_two_actions_have_the_collectives_that_whole_ones_hide() -> None:
    """They are the group's term, and no more of what is computed again."""
    whole, apart = (
        {pool: work.computing for pool, work in pool_work(_job(), plan, []).items()}
        for plan in (PLAN, PLAN.model_copy(update={"schedule": "zero-bubble"}))
    )
    sheets, chips, work = datasheet_times(topology(_job()), workload(_job())), topology(_job()), workload(_job())
    stage = PLAN.pipelines[0].stages[0]
    time = stage_time(sheets, chips, work, stage, stage.unit_indices())
    assert time.hidden_s > 0
    spoken_s = whole["nvidia"].tensor_parallel * time.total_s + time.hidden_s
    assert apart["nvidia"].tensor_parallel == pytest.approx(spoken_s / (time.total_s + time.hidden_s))
    assert apart["kunlun"] == whole["kunlun"], "with no other stage, its backwards are whole"


def test_of_real_chips_only_what_was_measured_is_told_apart() -> None:
    job = _job(real="nvidia")
    assert pool_work(job, PLAN, [])["nvidia"].computing.tensor_parallel is None
    grouped = [_row("nvidia", 2, kind, 0.6) for kind in KINDS]
    assert pool_work(job, PLAN, grouped)["nvidia"].computing.tensor_parallel is None
    both = grouped + [_row("nvidia", 1, kind, 0.9) for kind in KINDS]
    assert pool_work(job, PLAN, both)["nvidia"].computing.tensor_parallel == pytest.approx(1 - 0.9 / 1.2)
    slower_alone = grouped + [_row("nvidia", 1, kind, 1.5) for kind in KINDS]
    assert pool_work(job, PLAN, slower_alone)["nvidia"].computing.tensor_parallel == 0.0


def test_products_that_a_calibration_timed_are_a_part_of_their_own() -> None:
    job = _job(real="nvidia")
    grouped = [_row("nvidia", 2, kind, 0.6) | {"products_s": 0.45} for kind in KINDS]
    computing = pool_work(job, PLAN, grouped)["nvidia"].computing
    assert computing == Computing(products=pytest.approx(0.75), tensor_parallel=None, recompute=pytest.approx(0.0))
    assert pool_work(job, PLAN, grouped[:-1])["nvidia"].computing.products is None, "one kind was never timed"
    emulated = pool_work(_job(), PLAN, grouped)["nvidia"].computing
    assert emulated.products is None, "the data sheet has one efficiency for both"


def test_one_chip_alone_has_nobody_to_speak_to() -> None:
    job = synthetic.job()
    job["pools"]["kunlun"] |= {"emulate": None, "tp": 1}
    plan = synthetic.plan()
    plan["pipelines"][1]["stages"][0] |= {"tp": 1, "chips": [0]}
    found = pool_work(Job.model_validate(job), Plan.model_validate(plan), [])
    assert found["kunlun"].computing.tensor_parallel == 0.0


def test_the_whole_square_counts_where_attention_is() -> None:
    """A pool that has one attention and one MLP has more of it than one with the head as well."""
    found = {name: one.whole_square for name, one in pool_work(_job(), PLAN, []).items()}
    dims, tokens = _job().model.resolve(), 256
    attention, mlp = workload(_job()).units[1:3]
    assert found["nvidia"] == pytest.approx(
        1 + 2 * tokens * tokens * dims.hidden / (attention.forward_flops + mlp.forward_flops)
    )
    assert 1 < found["kunlun"] < found["nvidia"]
