"""The plans of a run, in its folder: plan.json is the one that it obeys, plan-EPOCH.json are those before it."""

from __future__ import annotations

from pathlib import Path

from balancer.plan.plan import Plan

NEWEST = "plan.json"


def keep_plan(run_dir: Path, plan: Plan, before: Plan | None = None) -> None:
    """Whoever looks meanwhile finds one of both, whole."""
    if before is not None:
        (run_dir / f"plan-{before.epoch}.json").write_text(before.to_json(), encoding="utf-8")
    unfinished = run_dir / f".{NEWEST}.new"
    unfinished.write_text(plan.to_json(), encoding="utf-8")
    unfinished.replace(run_dir / NEWEST)
