"""Whether emulated chips end their steps before they count as dead: a rank says nothing until its step is over."""

from __future__ import annotations

from balancer.simulate.simulate import Prediction
from hetero.cluster.fleet import Patience
from hetero.job.errors import JobError
from hetero.job.job import Job

FORWARD = 1 / 3
"""Of a step: what the validation of one global batch takes."""


def check_silence(job: Job, prediction: Prediction, time_scale: float) -> None:
    """Raises JobError where a step of `time_scale` would be taken for a hang."""
    if not job.emulated:
        return
    patience_s = Patience().rank_s
    silent_s = prediction.step_s * time_scale * (1 + FORWARD * job.eval.held_out_batches)
    if silent_s <= patience_s:
        return
    taken = f"auto, here {time_scale:.4g}" if job.time_scale == "auto" else job.time_scale
    validated = f" with its {job.eval.batches} batches of validation" if job.eval.held_out_batches else ""
    dead = f"a rank that says nothing for {patience_s:g} s counts as dead"
    smaller = "train.global_batch, eval.batches or the model" if validated else "train.global_batch or the model"
    remedy = f"make {smaller} smaller" if job.time_scale == "auto" else f"lower it, or make {smaller} smaller"
    raise JobError("time_scale", taken, f"a step{validated} takes {silent_s:,.0f} s, and {dead}", remedy)
