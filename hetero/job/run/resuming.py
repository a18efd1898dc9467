"""Whether a job may go on from a checkpoint, for it must compute the same numbers on the same text, and what should be
known of that checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hetero.checkpoint.manifest import RunState, SavedText
from hetero.checkpoint.resume import ResumePoint
from hetero.data.options import BUILT_IN
from hetero.data.source import Prepared
from hetero.job.errors import JobError
from hetero.job.job import Job
from hetero.job.run.claim import held_by
from hetero.monitoring.notice import Notice
from hetero.monitoring.skips import Skips

MOST_NAMED = 6
MAY_CHANGE = {
    "train.steps",
    *(f"train.optimizer.{key}" for key in ("lr", "schedule", "warmup_steps", "min_lr_ratio", "weight_decay")),
    *(f"train.optimizer.{key}" for key in ("betas", "eps", "clip")),
}
"""What a run that diverged is resumed with other values of: nothing that is stored depends on them."""
TUNING, NOT_SET = ("train.freeze", "train.lora"), "not set"
"""What a job without it says nothing of."""
HF, TOLD_AS = "model.hf.", "model.told as"
"""A config.json says nothing of what its family has a default for."""
NOT_COMPARED = "an earlier version of Hetero saved this checkpoint: whether the text is the same could not be compared"


def saved_text(text: Prepared) -> SavedText:
    """What a checkpoint keeps of the text."""
    return SavedText(n_tokens=text.n_tokens, fingerprint=text.fingerprint)


def check_resume(job: Job, point: ResumePoint) -> None:
    """Reads the whole checkpoint. Raises JobError unless the job is the one that made it, with steps left to do, and
    DamagedCheckpoint if it is not what was saved."""
    run = point.store.verify(point.step).run
    if differences := _differences(job, run):
        rule = f"the checkpoint was made by a job with another model, data or training{differences}"
        remedy = f"resume with that job ({point.run_dir / 'job.yaml'}); pools, links and plan may change"
        raise JobError("--resume", str(point), rule, remedy)
    if point.step >= job.train.steps:
        rule = f"the checkpoint has {point.step} steps already"
        raise JobError("train.steps", job.train.steps, rule, f"ask for more than {point.step} steps")


def check_text(job: Job, point: ResumePoint, text: Prepared) -> str:
    """Raises JobError if the checkpoint was made on other text. Returns in words what could not be compared, if
    anything."""
    saved = point.store.manifest(point.step).run.text
    if saved is None:
        return NOT_COMPARED
    if saved != saved_text(text):
        same = "as many as now, but others" if saved.n_tokens == text.n_tokens else f"now there are {text.n_tokens:,}"
        rule = f"the checkpoint was made on other text: it had {saved.n_tokens:,} tokens, {same}"
        remedy = "resume with the text as it was, wherever it lies; or train on the new one from the beginning"
        if job.data.source == BUILT_IN:
            remedy = "resume under the Python that the run had, whose version its report tells"
        raise JobError("data.source", job.data.source, rule, remedy)
    return ""


def skips_of(point: ResumePoint | None) -> Skips:
    """Where a row of skipped updates stood when the checkpoint was saved."""
    scalars = point.state.scalars if point else {}
    return Skips(int(scalars.get("skips") or 0), bool(scalars.get("skipping")))


def resume_notices(job: Job, point: ResumePoint) -> Iterator[Notice]:
    """That a save did not get to its end is normal; all else is a warning."""
    for fault in () if point.is_chosen else point.newer_faults():
        if fault.interrupted:
            yield Notice("passed_over", {"note": fault.why}, step=fault.step)
        else:
            rule = f"the checkpoint of step {fault.step} is damaged: {fault.why}"
            yield _warning(f"{rule}; this run goes on from an earlier one, of step {point.step}")
    if changed := "; ".join(text for _, text in _changes(job, point.state)):
        yield _warning(f"from here on another run than that of {point}: {changed}")
    if skips_of(point).in_row:
        good = point.last_good(point.state.updates)
        offer = f"--resume {good} goes on from the last good state" if good else "no checkpoint from before is there"
        yield _warning(f"{point} was saved in a row of skipped updates; {offer}")
    if (claim := held_by(point.run_dir)) is not None:
        yield _warning(f"{point.run_dir} is written by {claim}, and may remove what this run reads from it")


def _differences(job: Job, run: RunState) -> str:
    """Which facts differ, in words; without facts, whether any does."""
    if run.job_facts is None:
        differs = run.job_fingerprint != job.fingerprint_with_path()
        return ", or the text at another path (it does not say which)" if differs else ""
    named = [text for key, text in _changes(job, run) if key not in MAY_CHANGE]
    more = [f"and {len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return ": " + "; ".join([*named[:MOST_NAMED], *more]) if named else ""


def _changes(job: Job, run: RunState) -> list[tuple[str, str]]:
    """The keys of facts that differ, each with a word on how."""
    then, now = dict(_flat(_with_kind(run.job_facts or {}))), dict(_flat(_with_kind(job.facts())))
    may_lack = (*TUNING, HF) if then.get(TOLD_AS) == now.get(TOLD_AS) else TUNING
    lacking = {key for key in then.keys() | now.keys() if key.startswith(may_lack)} if run.job_facts else set()
    both = sorted((then.keys() & now.keys()) | lacking)
    found = [(key, then.get(key, NOT_SET), now.get(key, NOT_SET)) for key in both]
    return [(key, f"{key} was {was}, is {is_}") for key, was, is_ in found if was != is_]


def _with_kind(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Models that are told in different ways have no key in common."""
    model = facts.get("model", {})
    return {**facts, "model": {**model, "told as": ", ".join(model)}} if model else facts


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves, by their dotted keys; what a config.json says of one key is one leaf."""
    for key, value in facts.items():
        if isinstance(value, Mapping) and prefix != HF:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _warning(note: str) -> Notice:
    return Notice("warning", {"note": note})
