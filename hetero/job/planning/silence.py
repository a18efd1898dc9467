"""Whether chips end their steps before they count as dead: a rank says nothing until its step is over."""

from __future__ import annotations

from balancer.simulate.shadow import shadow_s
from balancer.simulate.simulate import Prediction
from hetero.cluster.fleet import Patience
from hetero.job.errors import JobError
from hetero.job.job import Job

FORWARD = 1 / 3
"""Of a step: what the validation of one global batch takes."""


def check_silence(job: Job, prediction: Prediction, time_scale: float) -> None:
    """Raises JobError where a step of emulated chips, which take as long as they are told, would count as a hang."""
    if not job.emulated or not (rule := _too_long(job, prediction, time_scale)):
        return
    taken = f"auto, here {time_scale:.4g}" if job.time_scale == "auto" else job.time_scale
    smaller = ("train.global_batch", *["eval.batches"] * bool(job.eval.every), "the model")
    remedy = f"make {' or '.join(smaller)} smaller{_without(job)}"
    raise JobError("time_scale", taken, rule, remedy if job.time_scale == "auto" else f"lower it, or {remedy}")


def silence_notes(job: Job, prediction: Prediction) -> list[str]:
    """The same of real chips, whose steps are only predicted."""
    rule = "" if job.emulated else _too_long(job, prediction, 1.0)
    return [f"by its plan {rule}: make train.global_batch smaller{_without(job)}"] if rule else []


def _without(job: Job) -> str:
    return ", or leave train.shadow out" if job.train.shadow else ""


def _too_long(job: Job, prediction: Prediction, time_scale: float) -> str:
    """In words; empty where there is time enough."""
    patience_s, batches = Patience().rank_s, job.eval.held_out_batches
    shadowed_s = shadow_s(prediction.scenario)
    silent_s = time_scale * (prediction.step_s * (1 + FORWARD * batches) + shadowed_s)
    if silent_s <= patience_s:
        return ""
    more = [*["its shadow"] * bool(shadowed_s), *[f"its {batches} batches of validation"] * bool(batches)]
    beside = f" with {' and '.join(more)}" if more else ""
    return f"a step{beside} takes {silent_s:,.0f} s, and a rank that says nothing for {patience_s:g} s counts as dead"
