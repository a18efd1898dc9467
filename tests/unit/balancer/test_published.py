"""Rows of others' runs, made up here, as questions to the planner."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.published import Told, regrets
from benchmarks.published_cases import Case
from benchmarks.published_fit import Residuals, roughly_s
from benchmarks.published_runs import Inexpressible, Run, read_runs

ROW = {
    "id": "made-1", "source": "made", "kind": "measured", "status": "ok", "model": "M", "n_layers": "4",
    "hidden": "1024", "heads": "16", "ffn": "4096", "vocab": "32000", "seq": "1024", "mlp": "gelu",
    "gpu": "A100-SXM-80GB", "n_gpus": "16", "gpus_per_node": "8", "interconnect": "NVLink + 8xHDR200",
    "tp": "2", "pp": "2", "dp": "4", "mbs": "1", "gbs": "32", "recompute": "full", "zero_stage": "1",
    "precision": "bf16", "framework": "Megatron-Core", "schedule": "1f1b", "step_time_s": "0.5",
}  # fmt: skip


def case(**changes: str) -> Case:
    return Case.of(Run({**ROW, **changes}))


def test_a_row_lies_on_chips_as_is_usual():
    made = case()
    first, second = made.plan.pipelines[:2]
    assert len(made.plan.pipelines) == 4
    assert [stage.chips for stage in first.stages] == [(0, 1), (8, 9)]
    assert second.stages[0].chips == (2, 3)
    assert [stage.units for stage in first.stages] == [((0, 5),), ((5, 10),)]
    assert made.pool.fabric_bytes_per_s == 25e9
    assert made.workload.sent_gradient_bytes == 2
    assert case(framework="nanotron", zero_stage="0").workload.sent_gradient_bytes == 6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cp": "2"}, "context parallel"),
        ({"zero_stage": "3"}, "ZeRO-3"),
        ({"act_offload_ratio": "0.5"}, "offloads"),
        ({"precision": "fp8"}, "fp8"),
        ({"gpu": "T4"}, "no data sheet of T4"),
        ({"dp": "3"}, "do not divide"),
    ],
)
def test_what_no_plan_says_is_left_out_with_the_reason(changes, reason):
    with pytest.raises(Inexpressible, match=reason):
        case(**changes)


def test_early_frameworks_write_whole_squares_and_hide_no_collectives():
    early, late = case(framework="Megatron-LM", precision="fp16"), case()
    assert early.expected_s() > late.expected_s()
    assert early.workload.units[1].activation_bytes > late.workload.units[1].activation_bytes
    assert early.workload.units[1].backward_flops + early.workload.units[1].remade_flops == pytest.approx(
        2 * early.workload.units[1].forward_flops
    )


def test_a_size_that_a_row_does_not_say_is_the_fastest():
    row = {**ROW, "hidden": "8192", "heads": "64", "ffn": "32768"}
    took_s = {size: case(**{**row, "mbs": str(size)}).expected_s() for size in (1, 2, 4, 8)}
    del row["mbs"]
    chosen = Case.of(Run(row)).layout.micro_batch
    assert took_s[chosen] == min(took_s.values()) < took_s[8]


def test_the_formula_is_near_the_simulator_and_a_fit_finds_what_was_simulated():
    layouts = [("1", "1", "16"), ("2", "2", "4"), ("4", "1", "4"), ("2", "1", "8"), ("1", "4", "4")]
    every = [case(tp=tp, pp=pp, dp=dp) for tp, pp, dp in layouts]
    told = [one.expected_s() for one in every]
    assert [roughly_s(one, one.problem().topology.kernels) for one in every] == pytest.approx(told, rel=0.25)
    slow = [case(tp=tp, pp=pp, dp=dp, step_time_s=str(1.2 * s)) for (tp, pp, dp), s in zip(layouts, told, strict=True)]
    residuals = Residuals.of(slow, told)
    fitted = residuals.fitted(np.ones(len(slow), dtype=bool))
    before, after = (sum(abs(o.expected_s(k) / o.run.step_s - 1) for o in slow) for k in (residuals.kernels, fitted))
    assert after < before


def test_regret_is_what_the_chosen_layout_takes_longer_and_ties_count_their_mean():
    runs = [case(id=str(n), mbs=mbs, step_time_s=s) for n, (mbs, s) in enumerate((("1", "3"), ("2", "2"), ("4", "4")))]
    assert regrets(Told(run, s) for run, s in zip(runs, (1.0, 2.0, 3.0), strict=True)) == pytest.approx([0.5])
    assert regrets(Told(run, s) for run, s in zip(runs, (1.0, 1.0, 3.0), strict=True)) == pytest.approx([0.25])


def test_a_file_of_any_rows_is_read(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(f"{','.join(ROW)}\n{','.join(ROW.values())}\n")
    assert read_runs(path)[0].row == ROW
