"""What should be known of the checkpoint that a run goes on from."""

from __future__ import annotations

from collections.abc import Iterator

from hetero.checkpoint.resume import ResumePoint
from hetero.job.claim import held_by
from hetero.monitoring.notice import Notice
from hetero.monitoring.skips import Skips


def skips_of(point: ResumePoint | None) -> Skips:
    """Where a row of skipped updates stood when the checkpoint was saved."""
    scalars = point.state.scalars if point else {}
    return Skips(int(scalars.get("skips") or 0), bool(scalars.get("skipping")))


def resume_notices(point: ResumePoint) -> Iterator[Notice]:
    """That a save did not get to its end is normal; all else is a warning."""
    for fault in () if point.is_chosen else point.newer_faults():
        if fault.interrupted:
            yield Notice("passed_over", {"step": fault.step, "note": fault.why})
        else:
            rule = f"the checkpoint of step {fault.step} is damaged: {fault.why}"
            yield _warning(f"{rule}; this run goes on from an earlier one, of step {point.step}")
    if skips_of(point).in_row:
        good = point.last_good(point.state.updates)
        offer = f"--resume {good} goes on from the last good state" if good else "no checkpoint from before is there"
        yield _warning(f"{point} was saved in a row of skipped updates; {offer}")
    if (claim := held_by(point.run_dir)) is not None:
        yield _warning(f"{point.run_dir} is written by {claim}, and may remove what this run reads from it")


def _warning(note: str) -> Notice:
    return Notice("warning", {"note": note})
