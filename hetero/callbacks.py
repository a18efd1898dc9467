"""Those who follow a run from Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.job.errors import JobError
from hetero.job.job import Job

HOOKS = ("on_start", "on_step", "on_event", "on_end")


@dataclass(frozen=True)
class RunStart:
    """What is known of a run before anything of it is started. `page` is the address of its live page, if it has
    one."""

    job: Job
    run_dir: Path
    page: str | None


class Callbacks:
    """Objects that have some of HOOKS. What one of them raises ends the run, and no other hears of it after that.

    Raises JobError for an object that would never be called."""

    def __init__(self, followers: Iterable[object]) -> None:
        self._followers = tuple(followers)
        self._broken = False
        for follower in self._followers:
            if not any(callable(getattr(follower, hook, None)) for hook in HOOKS):
                rule, remedy = f"has none of {', '.join(HOOKS)}", "give an object with one of these methods"
                raise JobError("callbacks", repr(follower), rule, remedy)

    def call(self, hook: str, said: Any) -> None:
        """Each in its order."""
        for follower in self._followers:
            called = getattr(follower, hook, None)
            if called is None or self._broken:
                continue
            try:
                called(said)
            except Exception:
                self._broken = True
                raise
