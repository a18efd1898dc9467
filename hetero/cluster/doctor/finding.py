"""One thing that was looked at, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """`check` was looked at and is `value`; `rule` says by what that is judged, `remedy` what helps.

    A warning costs speed or may come to matter, an error stands in the way of a run."""

    level: Level
    check: str
    value: str
    rule: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: BaseException, check: str | None = None) -> Finding:
        """An error that explains itself, as a finding."""
        key, value, rule, remedy = (str(getattr(error, part)) for part in ("key", "value", "rule", "remedy"))
        return cls("error", check or key, value, rule, remedy)

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def judged(check: str, value: str, rule: str, remedy: str, *, error: bool = False, warning: bool = False) -> Finding:
    """An error or a warning where its condition holds, else all is well and nothing has to be done."""
    level: Level = "error" if error else "warning" if warning else "ok"
    return Finding(level, check, value, rule, remedy if level != "ok" else "")


def blocking(findings: Iterable[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)
