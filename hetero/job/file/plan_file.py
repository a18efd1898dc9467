"""A plan that somebody has written, or a run has kept."""

from __future__ import annotations

from pathlib import Path

from balancer.errors import PlanError
from balancer.plan.plan import Plan
from hetero.job.errors import JobError

MOST_PLAN_BYTES = 4 << 20


def read_plan(path: Path, option: str = "--plan") -> Plan:
    """Named by a command's `option`. Raises JobError where it is none, PlanError at the key that is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_PLAN_BYTES + 1)
        if len(data) > MOST_PLAN_BYTES:
            rule = f"must be at most {MOST_PLAN_BYTES >> 20} MiB"
            raise JobError(option, str(path), rule, "check the path: is this a plan.json?")
        return Plan.from_json(data.decode("utf-8"))
    except OSError as error:
        raise JobError(option, str(path), f"must be a readable file ({error.strerror})", "check the path") from None
    except ValueError as error:
        raise JobError(option, str(path), f"must be UTF-8 text ({error})", "give a plan.json") from None
    except PlanError as error:
        if error.key != "plan":
            raise
        raise JobError(option, str(path), error.rule, "give a plan.json") from None
