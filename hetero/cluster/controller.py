"""The life of a run as a pure state machine: an event in, instructions out. No I/O, no clock, no torch, no Ray.

start: hosts ready -> worlds opened -> worlds joined and endpoints introduced -> ready
then, as the driver asks: probe a link; calibrate; configure an epoch; run steps under leases; the same again; stop.
Its work grows with hosts, never with ranks: hosts merge what their ranks say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations
from typing import Any

from bridge.identity import fingerprint
from hetero.cluster import events as ev
from hetero.cluster import instructions as ins
from hetero.cluster.blame import Blame
from hetero.cluster.errors import ClusterError, FingerprintMismatch
from hetero.cluster.fleet import FleetSpec, HostSpec, describe, host_id
from hetero.cluster.gather import Gather
from hetero.cluster.lease import LeaseBook

Instructions = list[ins.Instruction]


class Phase(Enum):
    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    PROBING = "probing"
    CALIBRATING = "calibrating"
    CONFIGURING = "configuring"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True)
class ControlOptions:
    """`ahead`: steps that a lease may reach beyond the last finished one. `grace_s`: how long a better cause of a
    failure is waited for."""

    ahead: int = 16
    grace_s: float = 1.5


class Controller:
    """Feed it every event in the order of arrival; carry out what it returns."""

    def __init__(self, fleet: FleetSpec, options: ControlOptions | None = None) -> None:
        self.fleet, self.options = fleet, options or ControlOptions()
        self.phase = Phase.NEW
        self.stale_reports = 0
        self._hosts = tuple(host.id for host in fleet.hosts)
        self._specs: dict[str, HostSpec] = {host.id: host for host in fleet.hosts}
        self._blame = Blame(self.options.grace_s)
        self._now = 0.0
        self._ready: Gather[ev.HostReady] = Gather(self._hosts)
        self._linked: Gather[None] = Gather(_doubled(self._hosts))
        self._answers: Gather[Any] = Gather(())
        self._usable: dict[str, int] = {}
        self._saves: dict[int, Gather[Any]] = {}
        self._active = self._hosts
        self._leases = LeaseBook(epoch=-1, start=0, hosts=len(self._hosts), ahead=self.options.ahead)
        self._handlers: dict[type, Callable[[Any], Instructions]] = {
            ev.StepReported: self._step_reported,
            ev.Tick: self._tick,
            ev.StartAsked: self._start_asked,
            ev.LinksAsked: self._links_asked,
            ev.ProbeAsked: self._probe_asked,
            ev.CalibrateAsked: self._calibrate_asked,
            ev.ConfigureAsked: self._configure_asked,
            ev.RunAsked: self._run_asked,
            ev.StopAsked: self._stop_asked,
            ev.HostReady: self._host_ready,
            ev.WorldOpened: self._world_opened,
            ev.WorldJoined: self._world_joined,
            ev.Introduced: lambda event: self._host_linked(f"{event.host} endpoint"),
            ev.LinkProbed: lambda event: self._complete(event.found),
            ev.Calibrated: self._calibrated,
            ev.Configured: self._configured,
            ev.PiecesSaved: self._pieces_saved,
            ev.RankTold: self._rank_told,
            ev.StrangerRefused: lambda event: [self._news("stranger_refused", event.host, event.data)],
            ev.Warned: lambda event: [self._news("warning", event.host, {"note": event.note})],
            ev.HostStopped: self._host_stopped,
            ev.Trouble: self._trouble,
        }

    @property
    def done(self) -> int:
        """Steps that all hosts have finished."""
        return self._leases.done

    def node(self, host: str) -> str:
        """The machine that a host id stands for, once it is known."""
        ready = self._ready.parts.get(host)
        return ready.node if ready else ""

    def way(self, one: str, other: str) -> dict[str, Any]:
        """How two pools are joined, once `auto` is decided: as their first hosts are."""
        here, there = (self._ready.parts[host_id(pool, 0)].machine for pool in (one, other))
        return self.fleet.link(one, other).way(one_machine=here != "" and here == there)

    def pids(self, host: str) -> Mapping[str, int]:
        """The processes of a host that is ready."""
        return self._ready.parts[host].pids

    @property
    def usable_bytes(self) -> Mapping[str, int]:
        """By pool, what its chip with least has free; without those whose chips don't say."""
        return self._usable

    def handle(self, event: ev.Event) -> Instructions:
        """What follows from an event. After the end nothing does."""
        return [] if self.phase is Phase.ENDED else self._handlers[type(event)](event)

    # Start

    def _start_asked(self, _: ev.StartAsked) -> Instructions:
        self._enter(Phase.STARTING, Phase.NEW)
        return [ins.ToHosts(self._hosts, ins.StartHost())]

    def _host_ready(self, event: ev.HostReady) -> Instructions:
        facts = {**describe(self._specs[event.host]), "node": event.node, "fingerprint": fingerprint(event.key)}
        facts |= {"software": dict(event.software), "pids": dict(event.pids)}
        news: Instructions = [self._news("host_ready", event.host, facts)]
        return news + self._link_hosts() if self._ready.add(event.host, event) else news

    def _link_hosts(self) -> Instructions:
        worlds = [ins.ToHosts((host_id(pool.name, 0),), ins.OpenWorld(pool.count)) for pool in self.fleet.pools]
        return [*worlds, *self._introduce_hosts(), *self._links_told()]

    def _links_told(self) -> Instructions:
        pairs = combinations(self.fleet.names, 2)
        return [self._news("link", None, {"between": list(pair), **self.way(*pair)}) for pair in pairs]

    def _introduce_hosts(self) -> Instructions:
        routes = self.fleet.routes()
        places = {(self._specs[host].pool.name, ready.machine) for host, ready in self._ready.parts.items()}
        peers = {place: self._peers(*place) for place in places}
        introductions: list[ins.Instruction] = []
        for host, spec in self._specs.items():
            others = dict(peers[spec.pool.name, self._ready.parts[host].machine])
            del others[host]
            introductions.append(ins.ToHosts((host,), ins.Introduce(others, routes)))
        return introductions

    def _peers(self, pool: str, machine: str) -> dict[str, dict[str, Any]]:
        """All endpoints, as the hosts of a pool on a machine reach them."""
        links = {other.name: self.fleet.link(pool, other.name) for other in self.fleet.pools}
        peers = {}
        for other, ready in self._ready.parts.items():
            link = links[self._specs[other].pool.name]
            way = link.way(one_machine=machine != "" and machine == ready.machine)
            peers[other] = {"uri": ready.uris.get(way.pop("scheme")), "key": ready.key, "pace": link.pace, **way}
        return peers

    def _world_opened(self, event: ev.WorldOpened) -> Instructions:
        pool = self._specs[event.host].pool
        members = tuple(host for host in self._hosts if self._specs[host].pool.name == pool.name)
        return [ins.ToHosts(members, ins.JoinWorld(pool.count, event.address))]

    def _world_joined(self, event: ev.WorldJoined) -> Instructions:
        if event.usable_bytes is not None:
            pool = self._specs[event.host].pool.name
            self._usable[pool] = min(event.usable_bytes, self._usable.get(pool, event.usable_bytes))
        return self._host_linked(f"{event.host} world")

    def _host_linked(self, what: str) -> Instructions:
        return self._complete({"hosts": self._ready.parts}) if self._linked.add(what, None) else []

    def _links_asked(self, event: ev.LinksAsked) -> Instructions:
        self._enter(Phase.STARTING, Phase.READY)
        told = self._links_told()
        self.fleet = replace(self.fleet, links=tuple(event.links))
        self._linked = Gather([f"{host} endpoint" for host in self._hosts])
        return [*self._introduce_hosts(), *(link for link in self._links_told() if link not in told)]

    # Measure, and configure

    def _probe_asked(self, event: ev.ProbeAsked) -> Instructions:
        self._enter(Phase.PROBING, Phase.READY)
        return [ins.ToHosts((event.source,), ins.ProbeLink(event.target, event.nbytes))]

    def _calibrate_asked(self, event: ev.CalibrateAsked) -> Instructions:
        self._enter(Phase.CALIBRATING, Phase.READY)
        self._answers = Gather(self._hosts)
        return [ins.ToHosts(self._hosts, ins.CalibrateRanks(event.spec))]

    def _calibrated(self, event: ev.Calibrated) -> Instructions:
        if not self._answers.add(event.host, event.measurements):
            return []
        return self._complete([one for part in self._in_host_order() for one in part])

    def _configure_asked(self, event: ev.ConfigureAsked) -> Instructions:
        epoch = event.spec["epoch"]
        if epoch <= self._leases.epoch:
            rule = f"a new epoch is greater than the last one, {self._leases.epoch}"
            return [ins.Refuse(ClusterError("plan.epoch", epoch, rule, "count epochs up"))]
        start, done = event.spec.get("start", 0), self._leases.done
        if event.spec.get("state") == "live" and (self._leases.epoch < 0 or start != done):
            rule = f"ranks hold the state after step {done}" if self._leases.epoch >= 0 else "no rank holds a state yet"
            remedy = "begin from initial values or a checkpoint, or where the last epoch has ended"
            return [ins.Refuse(ClusterError("state", f"live, from step {start}", rule, remedy))]
        self._enter(Phase.CONFIGURING, Phase.READY)
        self._answers = Gather(self._hosts)
        self._leases = LeaseBook(epoch, start, len(self._hosts), self.options.ahead)
        return [ins.ToHosts(self._hosts, ins.ConfigureRanks(event.spec))]

    def _configured(self, event: ev.Configured) -> Instructions:
        if not self._answers.add(event.host, event.answers):
            return []
        answers = [one for part in self._in_host_order() for one in part]
        mismatch = self._fingerprint_mismatch(self._answers.parts)
        if mismatch:
            self.phase = Phase.READY
            return [ins.Refuse(mismatch)]
        self._active = tuple(
            host for host in self._hosts if any(one.get("active", True) for one in self._answers.parts[host])
        )
        start = self._leases.done
        self._leases = LeaseBook(self._leases.epoch, start, len(self._active), self.options.ahead)
        return [self._news("configured", None, {"hosts": len(self._active)}), *self._complete(answers)]

    def _fingerprint_mismatch(self, parts: Mapping[str, Any]) -> FingerprintMismatch | None:
        seen: dict[str, list[str]] = {}
        for host, answers in parts.items():
            for answer in answers:
                if answer.get("fingerprint"):
                    place = f"{host} ({self.node(host)})" + (f": {answer['path']}" if answer.get("path") else "")
                    seen.setdefault(answer["fingerprint"], []).append(place)
        if len(seen) < 2:
            return None
        text = "; ".join(f"{print_} on {', '.join(sorted(set(places)))}" for print_, places in sorted(seen.items()))
        return FingerprintMismatch(
            "data.source", text, "all hosts read the same text", "make the same files lie on every host"
        )

    # Run

    def _run_asked(self, event: ev.RunAsked) -> Instructions:
        self._enter(Phase.RUNNING, Phase.READY)
        self._leases.until = max(event.until, self._leases.done)
        return self._lease() + self._complete_run()

    def _lease(self) -> Instructions:
        until = self._leases.grant()
        return [] if until is None else [ins.ToHosts(self._active, ins.Lease(self._leases.epoch, until))]

    def _step_reported(self, event: ev.StepReported) -> Instructions:
        leases = self._leases
        if event.epoch != leases.epoch:
            self.stale_reports += 1
            return []
        reports = leases.report(event.step, event.report)
        if reports is None:
            return []
        return [ins.Deliver(event.step, reports), *self._lease(), *self._complete_run()]

    def _pieces_saved(self, event: ev.PiecesSaved) -> Instructions:
        save = self._saves.setdefault(event.step, Gather(self._active))
        if not save.add(event.host, event.pieces):
            return []
        del self._saves[event.step]
        pieces = [piece for host in self._active for piece in save.parts[host]]
        news = ins.News("saved", event.step, self._leases.epoch, {"pieces": pieces})
        return [news, *self._complete_run()]

    def _rank_told(self, event: ev.RankTold) -> Instructions:
        return [ins.News(event.kind, event.step, event.epoch, event.data, event.rank.pool, str(event.rank))]

    def _complete_run(self) -> Instructions:
        """A run is over when its steps are done and every checkpoint that was begun is whole."""
        if self.phase is Phase.RUNNING and self._leases.finished and not self._saves:
            return self._complete(self._leases.done)
        return []

    # End

    def _stop_asked(self, _: ev.StopAsked) -> Instructions:
        self.phase = Phase.STOPPING
        self._answers = Gather(self._hosts)
        return [ins.ToHosts(self._hosts, ins.StopHost())]

    def _host_stopped(self, event: ev.HostStopped) -> Instructions:
        if not self._answers.add(event.host, None):
            return []
        self.phase = Phase.ENDED
        return [ins.Answer()]

    def _trouble(self, event: ev.Trouble) -> Instructions:
        if self.phase is Phase.STOPPING and event.severity in (ev.Severity.IN_THE_WAKE, ev.Severity.ABORTED):
            return []  # some ranks end before others
        self._blame.add(event, self._now)
        return self._judge()

    def _tick(self, event: ev.Tick) -> Instructions:
        self._now = event.now
        return self._judge()

    def _judge(self) -> Instructions:
        verdict = self._blame.root(self._now)
        if verdict is None:
            return []
        root, others = verdict
        self.phase = Phase.ENDED
        data = {"process": root.process, "host": root.host, "cause": root.cause, "error": root.error}
        return [self._news("failed", root.host, data, rank=root.rank), ins.Fail(root, others)]

    # Common steps

    def _enter(self, phase: Phase, allowed: Phase) -> None:
        if self.phase is not allowed:
            raise RuntimeError(f"{phase.value} was asked in phase {self.phase.value}, not in {allowed.value}")
        self.phase = phase

    def _complete(self, value: Any) -> Instructions:
        self.phase = Phase.READY
        return [ins.Answer(value)]

    def _in_host_order(self) -> list[Any]:
        return [self._answers.parts[host] for host in self._hosts]

    def _news(self, kind: str, host: str | None, data: Mapping[str, Any], rank: Any = None) -> ins.News:
        pool = self._specs[host].pool.name if host else None
        name = str(rank) if rank else None
        return ins.News(kind, self.done, self._leases.epoch, data, pool, name)


def _doubled(hosts: tuple[str, ...]) -> list[str]:
    return [f"{host} {what}" for host in hosts for what in ("world", "endpoint")]
