"""Watching over the processes of a host: who has ended, how, and who has been silent for too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.rank import RankId
from bridge.system.awake import AwakeClock
from bridge.words.endpoint import Failed, LostPeer
from bridge.words.error import ErrorReport
from hetero.cluster.control.blame import severity_of
from hetero.cluster.control.events import Severity, Trouble
from hetero.cluster.fleet import HostSpec
from hetero.cluster.host.processes import Helper, obituary, process_state
from hetero.cluster.host.roster import Member, Roster

EXIT_REPORT_S = 2.0


class Watchdog:
    """Tells each trouble once. After a helper's death nothing more is told: it was first, whatever its ranks say. Once
    `stopping` is set, ends are no trouble."""

    def __init__(self, spec: HostSpec, roster: Roster, clock: AwakeClock, tell: Callable[[Trouble], None]) -> None:
        self._spec, self._roster, self._clock, self._tell = spec, roster, clock, tell
        self.over = False
        self.stopping = False

    def rank_failed(self, member: Member, failed: Failed) -> None:
        """A rank has described its own end."""
        member.failed = True
        self._failed("rank", failed.error, member.rank)

    def rank_closed(self, member: Member) -> None:
        """All that a rank ever said has been read."""
        member.closed = True
        self._rank_ending(member)

    def rank_exited(self, member: Member, status: int) -> None:
        """Its fork server says how a rank ended; what the rank itself said last may still be unread."""
        member.status = status
        self._rank_ending(member)

    def helper_ended(self, helper: Helper) -> None:
        if not self.stopping:
            self._trouble(helper.name, *obituary(helper.status(wait_s=1.0)))
            self.over = True

    def helper_failed(self, helper: Helper, failed: Failed) -> None:
        self._failed(helper.name, failed.error)

    def peer_lost(self, helper: Helper, lost: LostPeer) -> None:
        """An endpoint has lost a peer."""
        self._trouble(helper.name, Severity.IN_THE_WAKE, f"lost its peer {lost.peer}: {lost.cause}")

    def look(self) -> None:
        """To be called often: what the passing of time alone brings to light."""
        now = self._clock.now()
        for member in self._roster:
            if member.ending_since is not None and now - member.ending_since > EXIT_REPORT_S:
                self._rank_ended(member)
        for member in () if self.stopping else self._roster.silent(self._spec.patience):
            self._silent(member)

    def _rank_ending(self, member: Member) -> None:
        member.ending_since = member.ending_since or self._clock.now()
        if member.closed and member.status is not None:
            self._rank_ended(member)

    def _rank_ended(self, member: Member) -> None:
        if not (member.gone or member.failed or self.stopping):
            self._trouble("rank", *obituary(member.status), member.rank)
        member.gone, member.ending_since = True, None

    def _silent(self, member: Member) -> None:
        member.heard = float("inf")  # told once
        state = process_state(member.pid)
        patience_s = member.patience_s(self._spec.patience)
        said = f"has been silent for {patience_s:g} s: {member.debt}; its process {member.pid} {state}"
        progress = -1 if state == "is stopped" else member.next_step
        self._trouble("rank", Severity.SILENT, said.rstrip(), member.rank, progress=progress)

    def _failed(self, process: str, error: ErrorReport, rank: RankId | None = None) -> None:
        told = error.plain()
        self._trouble(process, severity_of(told), f"failed: {error}", rank, error=told)

    def _trouble(self, process: str, severity: Severity, cause: str, rank: RankId | None = None, **more: Any) -> None:
        if not self.over:
            self._tell(Trouble(self._spec.id, process, severity, cause, rank, **more))
