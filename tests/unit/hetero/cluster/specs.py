"""What fake ranks are told: as little as a spec may say, and their script in place of a text."""

from __future__ import annotations

import json
from typing import Any, Literal

from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from hetero.models.dimensions import Dimensions
from hetero.words.options import TrainOptions
from hetero.words.spec import CalibrationSpec, RunSpec, TextRun

MODEL = Dimensions(layers=1, hidden=8, heads=1, kv_heads=1, ffn=8, vocab=2)
PLAN = Plan(pipelines=(PipelinePlan(share=1, stages=(StagePlan(pool="nvidia", units=((0, 4),)),)),))
CALIBRATION = CalibrationSpec(
    model=MODEL, pools={}, tensor_parallel={}, seq_len=1, micro_batch=1, precisions={}, repeats=5
)


def epoch_spec(
    epoch: int = 0, start: int = 0, state: Literal["initial", "live"] = "initial", save_every: int = 0, **script: Any
) -> RunSpec:
    """`script` is what fake ranks do in the epoch."""
    return RunSpec(
        epoch=epoch,
        model=MODEL,
        train=TrainOptions(steps=1000, global_batch=1),
        text=TextRun(path=json.dumps(script), fingerprint="", seq_len=1, vocab=2),
        plan=PLAN,
        pools={},
        start=start,
        steps=1000,
        state=state,
        checkpoint_folder="nowhere",
        checkpoint_every=save_every,
    )
