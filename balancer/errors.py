"""What the balancer refuses, with the key, the value, the rule that it breaks and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BalancerError(Exception):
    """Base of this package's errors. `key` is a path into the plan or job, such as "pipelines[0].stages[1].tp"."""

    def __init__(self, key: str, value: object, rule: str, remedy: str) -> None:
        super().__init__(f"{key}: {value!r}: {rule} ({remedy})")
        self.key = key
        self.value = value
        self.rule = rule
        self.remedy = remedy


class PlanError(BalancerError):
    """A plan that cannot be obeyed."""


class ScheduleError(BalancerError):
    """A schedule that is unknown, impossible or inconsistent."""


class CostError(BalancerError):
    """A time that nobody has measured or modelled."""


class NoPlanFits(BalancerError):
    """No plan fits. `need_bytes` and `limit_bytes` are per chip, of the closest plan (0: bytes are not why)."""

    def __init__(
        self, key: str, value: object, rule: str, remedy: str, need_bytes: int = 0, limit_bytes: int = 0
    ) -> None:
        super().__init__(key, value, rule, remedy)
        self.need_bytes = need_bytes
        self.limit_bytes = limit_bytes


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the closest known one, else all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(sorted(names)) or '(none)'}"
