from __future__ import annotations

import random
from dataclasses import asdict, replace

import pytest

from hetero.monitoring.record import Recorder, merge_hosts
from hetero.words.step import HostStep, StepTotals
from tests.unit.hetero.monitoring.reports import SHADOW, TOTALS, facts, merged, rank_report

DESIGN_KEYS = [
    "step", "time", "epoch", "loss", "grad_norm", "lr", "loss_scale", "skipped", "tokens", "consumed_tokens",
    "counted_tokens", "step_s", "tokens_per_s", "goodput", "emulated", "overrun", "link_ratio", "pools", "links",
    "stages",
]  # fmt: skip
POOL_KEYS = [
    "capacity_tokens_per_s", "tokens_per_s", "tflops_per_chip", "mfu", "busy", "optimizer", "bubble", "bridge_wait",
    "other", "data_wait", "bytes_sent", "bytes_received", "peak_memory_bytes",
]  # fmt: skip


def _hosts() -> list[HostStep]:
    a = merged([rank_report("a", 0, totals=TOTALS), rank_report("a", 1, forward_s=0.25, bubble_s=0.05)])
    b = merged([rank_report("b", 0, stage=1, start=500.0, end=500.9, peak_memory_bytes=7)])
    return [a, b]


def test_a_host_sums_its_ranks_and_keeps_extremes() -> None:
    host = _hosts()[0]
    assert (host.pool, host.host, host.ranks, host.step) == ("a", "a@0", 2, 3)
    assert host.forward_s == pytest.approx(0.45)
    assert host.peak_memory_bytes == 1000
    assert host.totals == StepTotals(**TOTALS)
    assert host.spans is None


def test_one_rank_that_overran_marks_host_and_step() -> None:
    late = merged([rank_report("a", 0), rank_report("a", 1, overrun=True)])
    assert late.overrun
    assert merge_hosts([late, _hosts()[1]], facts())["overrun"]
    assert not merge_hosts(_hosts(), facts())["overrun"]


def test_a_stage_shows_its_slowest_rank() -> None:
    stages = merge_hosts(_hosts(), facts())["stages"]
    assert [(stage["pool"], stage["stage"], stage["slowest_rank"]) for stage in stages] == [("a", 0, 1), ("b", 1, 0)]
    assert stages[0]["forward_s"] == 0.25
    assert stages[0]["wait_s"] == pytest.approx(0.15)


def test_the_line_has_the_keys_of_the_design_in_order() -> None:
    line = merge_hosts(_hosts(), facts(link_ratio=0.3))
    assert list(line) == DESIGN_KEYS
    assert list(line["pools"]["a"]) == POOL_KEYS
    assert line["link_ratio"] == 0.3


def test_clocks_of_two_hosts_are_never_subtracted() -> None:
    assert merge_hosts(_hosts(), facts())["step_s"] == 1.0


def test_pools_sum_to_the_job_and_capacity_is_what_never_waiting_would_give() -> None:
    line = merge_hosts(_hosts(), facts())
    a, b = line["pools"]["a"], line["pools"]["b"]
    assert line["tokens_per_s"] == 1000
    assert a["tokens_per_s"] + b["tokens_per_s"] == pytest.approx(1000)
    assert b["capacity_tokens_per_s"] == pytest.approx(b["tokens_per_s"] / b["busy"])


def test_mfu_is_model_flops_over_the_paced_peak() -> None:
    pool = merge_hosts(_hosts(), facts())["pools"]["a"]
    flops_per_chip = 1e5 * 750 / 2
    assert pool["tflops_per_chip"] == pytest.approx(flops_per_chip / 1e12)
    assert pool["mfu"] == pytest.approx(flops_per_chip / (1e9 / 10.0))


def test_updates_are_told_as_a_part_of_what_is_busy_and_reading_of_the_rest() -> None:
    pool = merge_hosts(_hosts(), facts())["pools"]["a"]
    assert pool["busy"] == pytest.approx((0.7 + 0.75) / 2)
    assert pool["optimizer"] == pytest.approx(0.1)
    assert pool["data_wait"] == pytest.approx(0.05)


def test_parts_of_a_pools_time_sum_to_one_whatever_the_clocks_say() -> None:
    draw = random.Random(0)
    for _ in range(100):
        spent = {key: draw.random() for key in ("forward_s", "backward_s", "optimizer_s", "bubble_s", "bridge_wait_s")}
        host = merged([rank_report("a", 0, end=100.0 + draw.random(), totals=TOTALS, **spent)])
        pool = merge_hosts([host], facts())["pools"]["a"]
        assert sum(pool[key] for key in ("busy", "bubble", "bridge_wait", "other")) == pytest.approx(1.0)
        assert min(pool[key] for key in ("busy", "bubble", "bridge_wait", "other")) >= 0


def test_recorder_counts_useful_time() -> None:
    recorder = Recorder(facts(started=100.0))
    a, b = _hosts()
    assert recorder.line([replace(b, end=100.9, start=100.0), a])["goodput"] == 1.0
    later = [replace(host, step=4, start=103.0, end=104.0) for host in (a, b)]
    assert recorder.line(later)["goodput"] == pytest.approx(2.0 / 4.0)


def test_a_skipped_step_is_not_useful() -> None:
    skipped = merged([rank_report("a", 0, totals=TOTALS | {"skipped": True})])
    assert merge_hosts([skipped], facts())["goodput"] == 0.0


def test_spans_are_kept_by_rank() -> None:
    host = merged([rank_report("a", 0, spans=(("F0", 100.0, 0.1),)), rank_report("a", 1)])
    assert host.spans == {"a:0": (("F0", 100.0, 0.1),)}


def test_a_validation_loss_is_in_the_lines_of_its_own_steps_alone() -> None:
    hosts = [merged([rank_report("a", 0, totals=TOTALS | {"eval_loss": 4.5})]), _hosts()[1]]
    assert merge_hosts(hosts, facts())["eval_loss"] == 4.5
    assert "eval_loss" not in merge_hosts(_hosts(), facts())


def test_what_was_computed_again_is_in_the_line_of_its_step_alone() -> None:
    hosts = [merged([rank_report("a", 0, totals=TOTALS | {"shadow": SHADOW})]), _hosts()[1]]
    assert merge_hosts(hosts, facts())["shadow"] == asdict(SHADOW)
    alone = replace(SHADOW, gradient=None)
    hosts = [merged([rank_report("a", 0, totals=TOTALS | {"shadow": alone})]), _hosts()[1]]
    assert "gradient" not in merge_hosts(hosts, facts())["shadow"]
    assert "shadow" not in merge_hosts(_hosts(), facts())
