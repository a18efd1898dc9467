"""The steps that the ranks may run: granted ahead of need, and counted as the hosts report them."""

from __future__ import annotations

from collections.abc import Sequence

from hetero.words.step import HostStep


class LeaseBook:
    """Leases and reports of one plan epoch over `hosts` hosts, from step `start`.

    At most `ahead` steps beyond the last finished one are granted, and no new lease before half of the last is used, so
    that leases are rare and a re-plan is never far.
    """

    def __init__(self, epoch: int, start: int, hosts: int, ahead: int) -> None:
        self.epoch, self.done, self.until, self.granted = epoch, start, start, start
        self.ended = False
        self._hosts, self._ahead = hosts, ahead
        self._waiting: dict[int, list[HostStep]] = {}

    @property
    def finished(self) -> bool:
        return self.done >= self.until

    def grant(self) -> int | None:
        """The new end of the lease, if it is time for one."""
        goal = min(self.until, self.done + self._ahead)
        if goal <= self.granted or (goal < self.until and self.granted - self.done > self._ahead // 2):
            return None
        self.granted = goal
        return goal

    def end(self) -> None:
        """No step more is to come, whatever was granted."""
        self.ended = True
        self.until = self.granted = self.done

    def report(self, step: int, report: HostStep) -> Sequence[HostStep] | None:
        """All reports of the step once the last host's is in. Hosts report in order, so steps complete in order."""
        reports = self._waiting.setdefault(step, [])
        reports.append(report)
        if len(reports) < self._hosts:
            return None
        self.done = step + 1
        return self._waiting.pop(step)
