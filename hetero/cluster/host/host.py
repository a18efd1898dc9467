"""One pool's part of one host: carries out the controller's orders and speaks for all its ranks. No Ray, no torch."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from typing import Any

from backends.versions import driver
from bridge.errors import PipeClosed, WordError
from bridge.rank import RankId
from bridge.system.awake import AwakeClock
from bridge.words.endpoint import Attached, EndpointOrder, Failed, Listen, Listening, LostPeer, TurnedAway
from bridge.words.error import ErrorReport
from bridge.words.release import agree
from bridge.words.word import Answer, Word, unexpected
from hetero.cluster.control import events as ev
from hetero.cluster.control import instructions as ins
from hetero.cluster.fleet import LOOPBACK, HostSpec
from hetero.cluster.host.crew import Crew
from hetero.cluster.host.machine import machine
from hetero.cluster.host.processes import Helper
from hetero.cluster.host.roster import Member, Roster
from hetero.cluster.host.watchdog import Watchdog
from hetero.monitoring.record import merge_ranks
from hetero.words.fork_server import Exited, Forked
from hetero.words.notices import RankNotice
from hetero.words.orders import Configure, Hold, JoinWorld, Lease, OpenWorld, RankOrder, Ready, Saved
from hetero.words.step import StepReport


class Host:
    """Belongs to the thread that made it, which must outlive it. `wake` may be called from any thread."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._address = spec.address or LOOPBACK
        self._events: list[ev.Event] = []
        self._crew = Crew(spec)
        self._clock = AwakeClock()
        self._roster = Roster(self._clock)
        self._watchdog = Watchdog(spec, self._roster, self._clock, self._events.append)
        self._listening: Listening | None = None
        self._software: dict[str, str] = {}
        self._unattached = set(spec.ranks)
        self._stop_by: float | None = None

    def handle(self, order: ins.HostOrder) -> None:
        """Carries out an order; what it leads to is heard from `poll`. Raises ClusterError if a start is
        impossible, ReleaseDiffers if the driver is of another release."""
        with contextlib.suppress(PipeClosed):  # a process has just died: poll reads its end and tells it
            match order:
                case ins.StartHost():
                    self._start()
                case ins.StopHost():
                    self._stop()
                case Lease():
                    self._roster.lease(order)
                case Hold():
                    self._roster.hold(order)
                case RankOrder():
                    self._ask_ranks(order)
                case EndpointOrder():
                    self._crew.endpoint.ask(order)
                case _:
                    raise TypeError(f"{order!r} is no order for a host")

    def poll(self, timeout: float) -> list[ev.Event]:
        """What has happened, after at most `timeout` seconds."""
        for speaker, word in self._crew.listen(0.0 if self._events else timeout):
            try:
                self._hear(speaker, word)
            except WordError as error:
                self._hear(speaker, Failed(ErrorReport.of(error)))
        self._watchdog.look()
        self._maybe_stopped()
        events = list(self._events)
        self._events.clear()
        return events

    def wake(self) -> None:
        """Makes a sleeping `poll` return."""
        self._crew.wake()

    def close(self) -> None:
        """Ends every process at once; none of them runs when this returns."""
        self._crew.close()

    # Who speaks

    def _hear(self, speaker: Helper | Member, word: Word | None) -> None:
        if isinstance(speaker, Member):
            if word is None:
                self._watchdog.rank_closed(speaker)
            else:
                self._roster.heard(speaker)
                self._rank_said(speaker, word)
        elif word is None:
            self._watchdog.helper_ended(speaker)
        else:
            self._helper_said(speaker, word)

    def _rank_said(self, member: Member, word: Word) -> None:
        match word:
            case StepReport():
                self._rank_stepped(member, word)
            case Answer():
                self._rank_answered(member, word)
            case Ready():
                self._roster.answered(member, word)
                self._maybe_ready()
            case Saved():
                self._rank_saved(member, word)
            case RankNotice():
                when = member.next_step, self._roster.epoch
                self._events.append(ev.RankNoticed(self.spec.id, member.rank, word, *when))
            case Failed():
                self._watchdog.rank_failed(member, word)
            case _:
                raise unexpected(word)

    def _helper_said(self, helper: Helper, word: Word) -> None:
        if isinstance(word, Answer):
            helper.answered(word)
        match word:
            case Listening():
                self._listening = word
                self._maybe_ready()
            case Attached(rank=rank):
                self._unattached.discard(rank)
                self._maybe_ready()
            case Forked(pids=pids, versions=versions):
                for index, pid in pids.items():
                    self._roster.member(RankId(self.spec.pool.name, index), word).pid = pid
                self._software = _system(self.spec.pool.family) | versions
                self._maybe_ready()
            case Answer():
                self._events.append(ev.Answered(self.spec.id, (word,)))
            case Exited(rank=rank, status=status):
                self._watchdog.rank_exited(self._roster.member(rank, word), status)
            case TurnedAway():
                facts = {"from": word.stranger, "cause": word.cause, "count": word.count}
                self._events.append(ev.StrangerRefused(self.spec.id, facts))
            case LostPeer():
                self._watchdog.peer_lost(helper, word)
            case Failed():
                self._watchdog.helper_failed(helper, word)
            case _:
                raise unexpected(word)

    # Start

    def _start(self) -> None:
        agree(self.spec.release)
        self._crew.start()
        self._events += [ev.Warned(self.spec.id, note) for note in self._crew.notes]
        self._crew.endpoint.ask(Listen(self.spec.id, self._address, self.spec.schemes))
        self._roster.members |= self._crew.fork()
        self._roster.expect()

    def _maybe_ready(self) -> None:
        if self._listening is None or not self._software or self._unattached:
            return
        if any(member.owes is Ready for member in self._roster):
            return
        pids = {**self._crew.pids, **{str(member.rank): member.pid for member in self._roster}}
        facts = socket.gethostname(), self._address, self._listening.uris, self._listening.key, pids, machine()
        self._events.append(ev.HostReady(self.spec.id, *facts, self._software))

    # Work

    def _ask_ranks(self, order: RankOrder[Any]) -> None:
        match order:
            case OpenWorld():
                self._roster.ask(order, lambda member: member.rank.index == 0)
            case JoinWorld(address=""):
                self._join_here(order)
            case Configure():
                self._roster.begin_epoch(order.spec)
                self._roster.ask(order)
            case _:
                self._roster.ask(order)

    def _join_here(self, order: JoinWorld) -> None:
        """The ranks of a pool on one host meet in memory that they are given; no socket is opened for it."""
        memory = os.memfd_create("hetero-world")
        try:
            self._roster.ask(order, fds=[memory])
        finally:
            os.close(memory)

    def _rank_answered(self, member: Member, answer: Answer) -> None:
        if answers := self._roster.answered(member, answer):
            self._events.append(ev.Answered(self.spec.id, answers))

    def _rank_stepped(self, member: Member, report: StepReport) -> None:
        if reports := self._roster.stepped(member, report):
            merged = merge_ranks(self.spec.id, reports)
            self._events.append(ev.StepReported(merged))

    def _rank_saved(self, member: Member, saved: Saved) -> None:
        if answers := self._roster.saved(member, saved):
            pieces = [answer.piece for answer in answers if answer.piece]
            self._events.append(ev.PiecesSaved(self.spec.id, saved.step, pieces))

    # End

    def _stop(self) -> None:
        self._stop_by = self._clock.now() + self.spec.patience.stop_s
        self._watchdog.stopping = True
        self._roster.dismiss()

    def _maybe_stopped(self) -> None:
        """Once all ranks have ended, or their time is up, the rest ends too."""
        if self._stop_by is None or self._watchdog.over:
            return
        if self._clock.now() < self._stop_by and any(not member.gone for member in self._roster):
            return
        self._watchdog.over = True
        self._crew.end()
        self._events.append(ev.HostStopped(self.spec.id))


def _system(family: str) -> dict[str, str]:
    told = driver(family)
    return {"os": platform.platform(), **({"driver": told} if told else {})}
