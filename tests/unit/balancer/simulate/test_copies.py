"""Sums of gradients among the copies of one pool, and parameters back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backends.options import EmulateOptions
from balancer.completion.completion import predict
from balancer.cost.kernels import FITTED
from balancer.cost.times import datasheet_times
from balancer.cost.topology import Topology
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.words.pool import Pool

MODEL = Dimensions(layers=2, hidden=1024, heads=16, kv_heads=16, ffn=2752, vocab=32000)
WORK = architecture(MODEL).workload(1024, 64, "bfloat16")
UNITS = len(WORK.units)
HOP_S = 0.5


def step_s(copies: int, hop_s: float, emulate: EmulateOptions | None = None) -> float:
    """Of whole models on a chip each, eight to a host."""
    pool = replace(Pool("a", "cuda", "A800-80G", 64, 8, emulate).planned("bfloat16"), fabric_bytes_per_s=25e9)
    topology = Topology((pool,), kernels=FITTED._replace(hop_s=hop_s))
    stage = StagePlan(pool="a", units=((0, UNITS),))
    pipeline = PipelinePlan(share=64 // copies, stages=(stage,), replicas=copies)
    return predict(Plan(pipelines=(pipeline,)), Problem(topology, WORK, datasheet_times(topology, WORK))).step_s


def test_each_unit_goes_round_all_copies_there_and_back():
    took = {copies: step_s(copies, HOP_S) - step_s(copies, 0.0) for copies in (1, 2, 16, 32)}
    assert took[1] == 0.0
    assert took[16] == pytest.approx(2 * UNITS * 15 * HOP_S, rel=0.02)
    assert took[32] / took[16] == pytest.approx(31 / 15, rel=0.02)
    assert 0.0 < took[2] < took[16] / 14


def test_emulated_copies_have_no_latency_of_their_own():
    assert step_s(16, HOP_S, EmulateOptions()) == step_s(16, 0.0, EmulateOptions())
