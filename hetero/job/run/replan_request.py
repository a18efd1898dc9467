"""How somebody asks a run for another plan: by a file in its folder, which its user alone may write.

replan.json     the plan, or none for the one before; taken away by the run, which answers in events.jsonl
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from balancer.plan.plan import Plan
from hetero.job.errors import JobError
from hetero.private import private_files

REQUEST = "replan.json"
MOST_BYTES = 4 << 20


class ReplanRequest(BaseModel):
    """`plan` None asks for the plan before the one that is obeyed. `name` is told with the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default_factory=lambda: secrets.token_hex(8))
    plan: Plan | None = None


@private_files()
def leave(run_dir: Path, request: ReplanRequest) -> None:
    """Lays it down whole. Raises JobError where another one waits, or the folder cannot be written."""
    whole = run_dir / f".{REQUEST}.{request.name}"
    try:
        whole.write_text(request.model_dump_json(exclude_none=True), encoding="utf-8")
        try:
            os.link(whole, run_dir / REQUEST)
        finally:
            whole.unlink()
    except FileExistsError:
        rule = f"another request waits there ({REQUEST}): a run takes one with each step"
        raise JobError("RUN_DIR", str(run_dir), rule, "try again, or remove it if its run has ended") from None
    except OSError as error:
        rule = f"must be a folder that you can write into ({error.strerror})"
        raise JobError("RUN_DIR", str(run_dir), rule, "ask as the user whose run it is") from None


def withdraw(run_dir: Path, request: ReplanRequest) -> bool:
    """Whether nobody had taken it."""
    try:
        if ReplanRequest.model_validate_json((run_dir / REQUEST).read_bytes()).name != request.name:
            return False
        (run_dir / REQUEST).unlink()
    except (OSError, ValidationError):
        return False
    return True


def take(run_dir: Path) -> ReplanRequest | None:
    """The one that lies there, once; None if there is none. Raises JobError for one that is not its user's own, or no
    request at all."""
    path = run_dir / REQUEST
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, f"must be a plain file ({error.strerror})") from None
    with os.fdopen(number, "rb") as file:
        fault = _fault(os.fstat(number))
        data = b"" if fault else file.read(MOST_BYTES + 1)
    if fault:
        raise _refused(path, fault)
    path.unlink(missing_ok=True)
    try:
        return ReplanRequest.model_validate_json(data)
    except ValidationError as error:
        raise _refused(path, f"is no request ({error.errors()[0]['msg'].lower()})") from None


def _fault(found: os.stat_result) -> str | None:
    """Why it is not obeyed: whoever else may write it could have this run compute what he likes."""
    if not stat.S_ISREG(found.st_mode):
        return "must be a plain file"
    if found.st_uid != os.geteuid():
        return f"must belong to the run's own user, and is user {found.st_uid}'s"
    if found.st_mode & 0o022:
        return "must be writable by its user alone"
    return None


def _refused(path: Path, rule: str) -> JobError:
    return JobError(REQUEST, str(path), rule, "remove it, and ask by `hetero replan`")
