"""Whose plan comes next, and which one would be taken back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from balancer.rebalance.decision import Decision, Reasons
from hetero.job.run.proposals import Proposals
from tests.unit.hetero.test_live_run import by_hand

REASONS = Reasons({}, 1.0, 1.0, 0.9, 10, 1.0, 0.1, 0)
LINE: Any = {"step": 3, "epoch": 0}


def test_the_balancers_return_leaves_nothing_to_take_back(tmp_path: Path) -> None:
    first, second = by_hand(32), by_hand(20)
    decisions = [Decision("shares", second, REASONS), Decision("back", first, REASONS)]
    live: Any = SimpleNamespace(hear=lambda line: decisions.pop(0), begin=lambda *begun: None)

    def planned(plan: Any) -> Any:
        return SimpleNamespace(plan=plan)

    proposals = Proposals(tmp_path, 100, planned, live, lambda kind, **data: None)
    proposals.begin(planned(first), 0)
    seen = []
    for _ in range(2):
        assert proposals.hear(LINE)
        assert proposals.next is not None
        seen.append((proposals.next.planned.plan, proposals.next.back))
        proposals.begin(proposals.next.planned, 4, 0.1)
    assert seen == [(second, False), (first, True)]
    assert not proposals._before
