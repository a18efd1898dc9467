"""The errors of a job file, and of the folders that its run writes into."""

from __future__ import annotations

from typing import Any

from hetero.errors import PARTS, ExplainedError


class JobError(ExplainedError):
    """A job that cannot be run as written. `key` is a dotted path such as `pools.nvidia.chip`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.key, self.value, self.rule, self.remedy, self.file, self.line)

    @classmethod
    def at(cls, key: str, cause: Any) -> JobError:
        """The same error under the job file's own key; `cause` explains itself in its package's words."""
        value, rule, remedy = (getattr(cause, part) for part in PARTS[1:])
        return cls(key, value, rule, remedy)


class FolderLost(JobError):
    """Another run has taken over a folder of this one, which could not be told from a dead one."""

    failure = True


def _rebuild(key: str, value: Any, rule: str, remedy: str, file: str | None, line: int | None) -> JobError:
    return JobError(key, value, rule, remedy, file=file, line=line)
