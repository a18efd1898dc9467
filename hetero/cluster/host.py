"""One pool's part of one host: carries out the controller's orders and speaks for all its ranks. No Ray, no torch."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from collections.abc import Callable
from typing import Any

from backends.versions import driver
from bridge.awake import AwakeClock
from bridge.errors import PipeClosed
from bridge.pipe import Message
from bridge.rank import RankId
from hetero.cluster import events as ev
from hetero.cluster import instructions as ins
from hetero.cluster.crew import Crew
from hetero.cluster.fleet import LOOPBACK, HostSpec
from hetero.cluster.machine import machine
from hetero.cluster.processes import Helper
from hetero.cluster.roster import Member, Roster
from hetero.cluster.vigil import Vigil
from hetero.monitoring.record import merge_ranks


class Host:
    """Belongs to the thread that made it, which must outlive it. `wake` may be called from any thread."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._address = spec.address or LOOPBACK
        self._events: list[ev.Event] = []
        self._crew = Crew(spec)
        self._clock = AwakeClock()
        self._roster = Roster(self._clock)
        self._vigil = Vigil(spec, self._roster, self._clock, self._events.append)
        self._uris: dict[str, str] = {}
        self._key = ""
        self._software: dict[str, str] = {}
        self._unattached = set(spec.ranks)
        self._stop_by: float | None = None
        self._orders: dict[type, Callable[[Any], None]] = {
            ins.StartHost: self._start,
            ins.OpenWorld: self._open_world,
            ins.JoinWorld: self._join_world,
            ins.Introduce: self._introduce,
            ins.ProbeLink: self._probe,
            ins.CalibrateRanks: self._calibrate,
            ins.ConfigureRanks: self._configure,
            ins.Lease: lambda order: self._roster.lease(order.epoch, order.until),
            ins.StopHost: self._stop,
        }
        self._reports: dict[str, Callable[[Member, Message], None]] = {
            "ready": self._rank_ready,
            "world": self._world_opened,
            "joined": self._rank_joined,
            "calibrated": self._rank_calibrated,
            "configured": self._rank_configured,
            "step": self._rank_stepped,
            "saved": self._rank_saved,
            "event": self._rank_told,
            "failed": self._vigil.rank_failed,
        }

    def handle(self, order: ins.Order) -> None:
        """Carries out an order; what it leads to is heard from `poll`. Raises ClusterError if a start is impossible."""
        with contextlib.suppress(PipeClosed):  # a process has just died: poll reads its end and tells it
            self._orders[type(order)](order)

    def poll(self, timeout: float) -> list[ev.Event]:
        """What has happened, after at most `timeout` seconds."""
        for speaker, message in self._crew.listen(0.0 if self._events else timeout):
            self._hear(speaker, message)
        self._vigil.look()
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

    def _hear(self, speaker: Helper | Member, message: Message | None) -> None:
        if isinstance(speaker, Member):
            if message is None:
                self._vigil.rank_closed(speaker)
            else:
                self._roster.heard(speaker)
                self._reports[message["report"]](speaker, message)
        elif message is None:
            self._vigil.helper_ended(speaker)
        else:
            self._helper_said(message)

    def _helper_said(self, message: Message) -> None:
        match message["report"]:
            case "listening":
                self._uris, self._key = message["uris"], message["key"]
                self._maybe_ready()
            case "attached":
                self._unattached.discard(RankId(*message["rank"]))
                self._maybe_ready()
            case "introduced":
                self._events.append(ev.Introduced(self.spec.id))
            case "forked":
                for index, pid in message["pids"].items():
                    self._roster.members[RankId(self.spec.pool.name, int(index))].pid = pid
                self._software = _system(self.spec.pool.family) | message["versions"]
                self._maybe_ready()
            case "exited":
                self._vigil.rank_exited(self._roster.members[RankId(*message["rank"])], message["status"])
            case "probed":
                found = {key: value for key, value in message.items() if key not in ("report", "peer")}
                self._events.append(ev.LinkProbed(self.spec.id, message["peer"], found))
            case "refused":
                facts = {key: message[key] for key in ("from", "cause", "count")}
                self._events.append(ev.StrangerRefused(self.spec.id, facts))
            case "peer_lost" | "failed":
                self._vigil.endpoint_said(message)

    # Start

    def _start(self, _: ins.StartHost) -> None:
        self._crew.start()
        self._events += [ev.Warned(self.spec.id, note) for note in self._crew.notes]
        listen = {"endpoint": self.spec.id, "host": self._address, "schemes": list(self.spec.schemes)}
        self._crew.endpoint.pipe.send({"do": "listen", **listen})
        self._roster.members |= self._crew.fork()
        self._roster.expect("ready")

    def _rank_ready(self, member: Member, message: Message) -> None:
        member.pid = message["pid"]
        if self._roster.answered(member, message):
            self._maybe_ready()

    def _maybe_ready(self) -> None:
        told = self._uris and self._software and not self._unattached
        if not told or any(member.owes == "ready" for member in self._roster):
            return
        pids = {**self._crew.pids, **{str(member.rank): member.pid for member in self._roster}}
        facts = socket.gethostname(), self._address, self._uris, self._key, pids, machine(), self._software
        self._events.append(ev.HostReady(self.spec.id, *facts))

    def _open_world(self, order: ins.OpenWorld) -> None:
        """The ranks of a pool on one host meet in memory that they are given; no socket is opened for it."""
        if order.size == len(self.spec.ranks):
            self._events.append(ev.WorldOpened(self.spec.id, ""))
            return
        message = {"do": "open_world", "size": order.size, "host": self._address, "pool": self.spec.pool.run}
        self._roster.ask(message, "world", lambda member: member.rank.index == 0)

    def _world_opened(self, member: Member, message: Message) -> None:
        self._roster.answered(member, message)
        self._events.append(ev.WorldOpened(self.spec.id, message["address"]))

    def _join_world(self, order: ins.JoinWorld) -> None:
        message = {"do": "join_world", "size": order.size, "address": order.address, "pool": self.spec.pool.run}
        if order.address:
            self._roster.ask({**message, "secret": self.spec.secret}, "joined")
            return
        memory = os.memfd_create("hetero-world")
        try:
            self._roster.ask(message, "joined", fds=[memory])
        finally:
            os.close(memory)

    def _rank_joined(self, member: Member, message: Message) -> None:
        if answers := self._roster.answered(member, message):
            told = [answer["usable_bytes"] for answer in answers if answer.get("usable_bytes") is not None]
            notes = sorted({answer["note"] for answer in answers if answer.get("note")})
            self._events += [ev.Warned(self.spec.id, f"chips of host {self.spec.id}: {note}") for note in notes]
            self._events.append(ev.WorldJoined(self.spec.id, min(told, default=None)))

    def _introduce(self, order: ins.Introduce) -> None:
        self._crew.endpoint.pipe.send({"do": "introduce", "peers": order.peers, "routes": order.routes})

    def _probe(self, order: ins.ProbeLink) -> None:
        self._crew.endpoint.pipe.send({"do": "probe", "peer": order.peer, "bytes": order.nbytes})

    # Work

    def _calibrate(self, order: ins.CalibrateRanks) -> None:
        self._roster.ask({"do": "calibrate", "spec": order.spec}, "calibrated")

    def _rank_calibrated(self, member: Member, message: Message) -> None:
        if answers := self._roster.answered(member, message):
            measurements = [one for answer in answers for one in answer["measurements"]]
            self._events.append(ev.Calibrated(self.spec.id, measurements))

    def _configure(self, order: ins.ConfigureRanks) -> None:
        self._roster.begin_epoch(order.spec.get("start", 0))
        self._roster.ask({"do": "configure", "spec": order.spec}, "configured")

    def _rank_configured(self, member: Member, message: Message) -> None:
        member.active = message.get("active", True)
        if answers := self._roster.answered(member, {**message, "rank": list(member.rank)}):
            self._events.append(ev.Configured(self.spec.id, answers))

    def _rank_stepped(self, member: Member, message: Message) -> None:
        if reports := self._roster.stepped(member, {**message, "host": self.spec.id}):
            self._events.append(ev.StepReported(self.spec.id, message["epoch"], message["step"], merge_ranks(reports)))

    def _rank_saved(self, member: Member, message: Message) -> None:
        if answers := self._roster.saved(member, message):
            pieces = [answer["piece"] for answer in answers if answer.get("piece")]
            self._events.append(ev.PiecesSaved(self.spec.id, message["step"], pieces))

    def _rank_told(self, member: Member, message: Message) -> None:
        facts = message["kind"], message["step"], message["epoch"], message["data"]
        self._events.append(ev.RankTold(self.spec.id, member.rank, *facts))

    # End

    def _stop(self, _: ins.StopHost) -> None:
        self._stop_by = self._clock.now() + self.spec.patience.stop_s
        self._vigil.stopping = True
        self._roster.dismiss()

    def _maybe_stopped(self) -> None:
        """Once all ranks have ended, or their time is up, the rest ends too."""
        if self._stop_by is None or self._vigil.over:
            return
        if self._clock.now() < self._stop_by and any(not member.gone for member in self._roster):
            return
        self._vigil.over = True
        self._crew.end()
        self._events.append(ev.HostStopped(self.spec.id))


def _system(family: str) -> dict[str, str]:
    told = driver(family)
    return {"os": platform.platform(), **({"driver": told} if told else {})}
