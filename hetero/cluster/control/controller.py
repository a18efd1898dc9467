"""The life of a run as a pure state machine: an event in, instructions out. No I/O, no clock, no torch, no Ray.

start: hosts ready -> worlds opened -> worlds joined and endpoints introduced -> ready
then, as the driver asks: any order to ranks or endpoints; configure an epoch; run steps under leases; the same again;
stop. An order goes out and its answers come in by `ask`. Its work grows with hosts, never with ranks: hosts merge what
their ranks say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import chain, combinations
from typing import Any

from bridge.trust.identity import fingerprint
from bridge.words.endpoint import EndpointOrder, Introduce, Introduced, PeerSpec
from bridge.words.word import A, Answer
from hetero.cluster.control import events as ev
from hetero.cluster.control import instructions as ins
from hetero.cluster.control.blame import Blame
from hetero.cluster.control.lease import LeaseBook
from hetero.cluster.control.roll_call import RollCall
from hetero.cluster.control.save_book import SaveBook
from hetero.cluster.errors import ClusterError, FingerprintMismatch
from hetero.cluster.fleet import FleetSpec, HostSpec, describe, host_id
from hetero.monitoring.notice import Notice
from hetero.words.orders import Configured, Hold, JoinWorld, Lease, OpenWorld, RankOrder, WorldJoined
from hetero.words.pool import Pool
from hetero.words.spec import RunSpec

Instructions = list[ins.Instruction]
ByHost = Mapping[str, Sequence[A]]


class Phase(Enum):
    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    ASKING = "asking"
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


@dataclass(frozen=True)
class _Question:
    """An order under way: whose answers are still to come, and what follows from them."""

    hosts: Sequence[str]
    answers: RollCall[Sequence[Any]]
    then: Callable[[ByHost[Any]], Instructions]


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
        self._ready: RollCall[ev.HostReady] = RollCall(self._hosts)
        self._linked: RollCall[None] = RollCall([*fleet.names, *self._hosts])
        self._questions: dict[tuple[type[Answer], str], _Question] = {}
        self._stopped: RollCall[None] = RollCall(self._hosts)
        self._usable: dict[str, int] = {}
        self._active = self._hosts
        self._saves: SaveBook | None = None
        self._leases = LeaseBook(epoch=-1, start=0, hosts=len(self._hosts), ahead=self.options.ahead)
        self._handlers: dict[type, Callable[[Any], Instructions]] = {
            ev.StepReported: self._step_reported,
            ev.Tick: self._tick,
            ev.StartAsked: self._start_asked,
            ev.LinksAsked: self._links_asked,
            ev.OrderAsked: self._order_asked,
            ev.ConfigureAsked: self._configure_asked,
            ev.RunAsked: self._run_asked,
            ev.HoldAsked: self._hold_asked,
            ev.StopAsked: self._stop_asked,
            ev.HostReady: self._host_ready,
            ev.Answered: self._answered,
            ev.PiecesSaved: self._pieces_saved,
            ev.RankNoticed: self._rank_noticed,
            ev.StrangerRefused: lambda event: [self._notice("stranger_refused", event.host, event.data)],
            ev.Warned: lambda event: [self._notice("warning", event.host, {"note": event.note})],
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

    def software(self, host: str) -> Mapping[str, str]:
        """The versions of what a host that is ready runs."""
        return self._ready.parts[host].software

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

    # Ask

    def ask(
        self,
        hosts: Sequence[str],
        order: RankOrder[A] | EndpointOrder[A],
        then: Callable[[ByHost[A]], Instructions],
    ) -> Instructions:
        """Has `hosts` carry out an order. Once all have answered, `then` says what follows from their answers, which it
        is given in the order of `hosts`."""
        question = _Question(hosts, RollCall(hosts), then)
        self._questions.update(dict.fromkeys([(order.answer, host) for host in hosts], question))
        return [ins.ToHosts(hosts, order)]

    def _answered(self, event: ev.Answered) -> Instructions:
        question = self._questions.pop((type(event.answers[0]), event.host), None)
        if question is None:
            name = type(event.answers[0]).__name__
            return self._trouble(ev.Trouble(event.host, "agent", ev.Severity.OWN_ERROR, f"said {name} unasked"))
        if not question.answers.add(event.host, event.answers):
            return []
        return question.then({host: question.answers.parts[host] for host in question.hosts})

    def _order_asked(self, event: ev.OrderAsked) -> Instructions:
        self._enter(Phase.ASKING, Phase.READY)
        hosts = self._hosts if event.hosts is None else event.hosts
        return self.ask(hosts, event.order, lambda said: self._complete(_all(said)))

    # Start

    def _start_asked(self, _: ev.StartAsked) -> Instructions:
        self._enter(Phase.STARTING, Phase.NEW)
        return [ins.ToHosts(self._hosts, ins.StartHost())]

    def _host_ready(self, event: ev.HostReady) -> Instructions:
        facts = {**describe(self._specs[event.host]), "node": event.node, "fingerprint": fingerprint(event.key)}
        facts |= {"software": dict(event.software), "pids": dict(event.pids)}
        told: Instructions = [self._notice("host_ready", event.host, facts)]
        return told + self._link_hosts() if self._ready.add(event.host, event) else told

    def _link_hosts(self) -> Instructions:
        worlds = chain.from_iterable(map(self._meet, self.fleet.pools))
        return [*worlds, *self._introduce_hosts(), *self._links_told()]

    def _links_told(self) -> Instructions:
        pairs = combinations(self.fleet.names, 2)
        return [self._notice("link", None, {"between": list(pair), **self.way(*pair)}) for pair in pairs]

    def _introduce_hosts(self) -> Instructions:
        routes = self.fleet.routes()
        places = {(self._specs[host].pool.name, ready.machine) for host, ready in self._ready.parts.items()}
        peers = {place: self._peers(*place) for place in places}
        introductions: Instructions = []
        for host, spec in self._specs.items():
            others = dict(peers[spec.pool.name, self._ready.parts[host].machine])
            del others[host]
            introductions += self.ask((host,), Introduce(others, routes), partial(self._introduced, host))
        return introductions

    def _peers(self, pool: str, machine: str) -> dict[str, PeerSpec]:
        """All endpoints, as the hosts of a pool on a machine reach them."""
        links = {other.name: self.fleet.link(pool, other.name) for other in self.fleet.pools}
        peers = {}
        for other, ready in self._ready.parts.items():
            link = links[self._specs[other].pool.name]
            way = link.way(one_machine=machine != "" and machine == ready.machine)
            peers[other] = PeerSpec(ready.uris.get(way.pop("scheme")), ready.key, pace=link.pace, **way)
        return peers

    def _introduced(self, host: str, _: ByHost[Introduced]) -> Instructions:
        return self._part_linked(host)

    def _meet(self, pool: Pool) -> Instructions:
        """The ranks of a pool on one host need no place to meet."""
        if pool.on_one_host:
            return self._join_world(pool, "")
        first = host_id(pool.name, 0)
        order = OpenWorld(pool, self._ready.parts[first].address)
        return self.ask((first,), order, lambda said: self._join_world(pool, said[first][0].address))

    def _join_world(self, pool: Pool, address: str) -> Instructions:
        members = tuple(host for host in self._hosts if self._specs[host].pool.name == pool.name)
        secret = self._specs[members[0]].secret if address else ""
        order = JoinWorld(pool, address, secret)
        return self.ask(members, order, partial(self._world_joined, pool.name))

    def _world_joined(self, pool: str, said: ByHost[WorldJoined]) -> Instructions:
        free = [one.usable_bytes for one in _all(said) if one.usable_bytes is not None]
        self._usable |= {pool: min(free)} if free else {}
        return [*self._notes(said), *self._part_linked(pool)]

    def _part_linked(self, part: str) -> Instructions:
        """A pool has joined its world, or a host knows its peers."""
        return self._complete({"hosts": self._ready.parts}) if self._linked.add(part, None) else []

    def _links_asked(self, event: ev.LinksAsked) -> Instructions:
        self._enter(Phase.STARTING, Phase.READY)
        told = self._links_told()
        self.fleet = replace(self.fleet, links=tuple(event.links))
        self._linked = RollCall(self._hosts)
        return [*self._introduce_hosts(), *(link for link in self._links_told() if link not in told)]

    # Configure

    def _configure_asked(self, event: ev.ConfigureAsked) -> Instructions:
        spec, epoch = event.order.spec, event.order.spec.epoch
        if epoch <= self._leases.epoch:
            rule = f"a new epoch is greater than the last one, {self._leases.epoch}"
            return [ins.Refuse(ClusterError("plan.epoch", epoch, rule, "count epochs up"))]
        start, done = spec.start, self._leases.done
        if spec.state == "live" and (self._leases.epoch < 0 or start != done):
            rule = f"ranks hold the state after step {done}" if self._leases.epoch >= 0 else "no rank holds a state yet"
            remedy = "begin from initial values or a checkpoint, or where the last epoch has ended"
            return [ins.Refuse(ClusterError("state", f"live, from step {start}", rule, remedy))]
        self._enter(Phase.CONFIGURING, Phase.READY)
        self._leases = LeaseBook(epoch, start, len(self._hosts), self.options.ahead)
        return self.ask(self._hosts, event.order, partial(self._configured, spec))

    def _configured(self, spec: RunSpec, said: ByHost[Configured]) -> Instructions:
        mismatch = self._fingerprint_mismatch(said)
        if mismatch:
            self.phase = Phase.READY
            return [ins.Refuse(mismatch)]
        self._active = tuple(host for host, told in said.items() if any(one.active for one in told))
        start = self._leases.done
        self._leases = LeaseBook(self._leases.epoch, start, len(self._active), self.options.ahead)
        self._saves = SaveBook(spec, self._active)
        configured = self._notice("configured", None, {"hosts": len(self._active)})
        return [configured, *self._notes(said), *self._complete(_all(said))]

    def _fingerprint_mismatch(self, said: ByHost[Configured]) -> FingerprintMismatch | None:
        seen: dict[str, list[str]] = {}
        for host, told in said.items():
            for one in told:
                if one.fingerprint:
                    place = f"{host} ({self.node(host)})" + (f": {one.path}" if one.path else "")
                    seen.setdefault(one.fingerprint, []).append(place)
        if len(seen) < 2:
            return None
        text = "; ".join(f"{print_} on {', '.join(sorted(set(places)))}" for print_, places in sorted(seen.items()))
        return FingerprintMismatch(
            "data.source", text, "all hosts read the same text", "make the same files lie on every host"
        )

    # Run

    def _run_asked(self, event: ev.RunAsked) -> Instructions:
        self._enter(Phase.RUNNING, Phase.READY)
        if self._leases.ended and event.until > self.done:
            raise RuntimeError(f"epoch {self._leases.epoch} was held after step {self.done - 1}: configure another")
        self._leases.until = max(event.until, self._leases.done)
        return self._lease() + self._complete_run()

    def _hold_asked(self, _: ev.HoldAsked) -> Instructions:
        """One host is enough: its ranks tell all others on their way."""
        is_running = self.phase is Phase.RUNNING and not self._leases.finished
        return [ins.ToHosts(self._active[:1], Hold(self._leases.epoch))] if is_running else []

    def _lease(self) -> Instructions:
        until = self._leases.grant()
        return [] if until is None else [ins.ToHosts(self._active, Lease(self._leases.epoch, until))]

    def _step_reported(self, event: ev.StepReported) -> Instructions:
        step = event.report.step
        if event.report.epoch != self._leases.epoch:
            self.stale_reports += 1
            return []
        reports = self._leases.report(step, event.report)
        if reports is None:
            return []
        if any(one.totals and one.totals.held for one in reports):
            self._leases.end()
            over = ins.ToHosts(self._active, Lease(self._leases.epoch, self.done))
            return [over, ins.Deliver(step, reports), *self._written(), *self._complete_run()]
        return [ins.Deliver(step, reports), *self._lease(), *self._written(), *self._complete_run()]

    def _pieces_saved(self, event: ev.PiecesSaved) -> Instructions:
        assert self._saves is not None
        self._saves.add(event.host, event.step, event.pieces)
        return [*self._written(), *self._complete_run()]

    def _written(self) -> Instructions:
        """What is whole, once the steps before it are told."""
        assert self._saves is not None
        whole = self._saves.take_whole(self.done)
        return [ins.CheckpointWritten(step, self._leases.epoch, pieces) for step, pieces in whole]

    def _rank_noticed(self, event: ev.RankNoticed) -> Instructions:
        said, epoch = event.notice, _begun(event.epoch)
        return [Notice(said.kind, said.facts, event.step, epoch, event.rank.pool, str(event.rank))]

    def _complete_run(self) -> Instructions:
        """A run is over when its steps are done and every checkpoint that was begun is whole."""
        if self.phase is not Phase.RUNNING or not self._leases.finished:
            return []
        is_owed = self._saves is not None and self._saves.is_owed(self.done)
        return [] if is_owed else self._complete(self.done)

    # End

    def _stop_asked(self, _: ev.StopAsked) -> Instructions:
        self.phase = Phase.STOPPING
        return [ins.ToHosts(self._hosts, ins.StopHost())]

    def _host_stopped(self, event: ev.HostStopped) -> Instructions:
        if not self._stopped.add(event.host, None):
            return []
        self.phase = Phase.ENDED
        return [ins.Done()]

    def _trouble(self, event: ev.Trouble) -> Instructions:
        if self.phase is Phase.STOPPING and event.severity in (ev.Severity.IN_THE_WAKE, ev.Severity.ABORTED):
            return []  # some ranks end before others
        self._blame.add(event, self._now)
        return self._judge()

    def _tick(self, event: ev.Tick) -> Instructions:
        self._now = event.now
        return self._judge()

    def _judge(self) -> Instructions:
        blamed = self._blame.root(self._now)
        if blamed is None:
            return []
        root, others = blamed
        self.phase = Phase.ENDED
        data = {"process": root.process, "host": root.host, "cause": root.cause, "error": root.error}
        return [self._notice("failed", root.host, data, rank=root.rank), ins.Fail(root, others)]

    # Common steps

    def _enter(self, phase: Phase, allowed: Phase) -> None:
        if self.phase is not allowed:
            raise RuntimeError(f"{phase.value} was asked in phase {self.phase.value}, not in {allowed.value}")
        self.phase = phase

    def _complete(self, value: Any) -> Instructions:
        self.phase = Phase.READY
        return [ins.Done(value)]

    def _notes(self, said: ByHost[WorldJoined] | ByHost[Configured]) -> Instructions:
        """What chips say of themselves, once for all of a host that say the same."""
        notes = [(host, note) for host, told in said.items() for note in sorted({one.note for one in told if one.note})]
        return [self._notice("warning", host, {"note": f"chips of host {host}: {note}"}) for host, note in notes]

    def _notice(self, kind: str, host: str | None, data: Mapping[str, Any], rank: Any = None) -> Notice:
        pool = self._specs[host].pool.name if host else None
        name = str(rank) if rank else None
        return Notice(kind, data, self.done, _begun(self._leases.epoch), pool, name)


def _begun(epoch: int) -> int | None:
    """None before the first."""
    return epoch if epoch >= 0 else None


def _all(said: ByHost[A]) -> list[A]:
    return [one for told in said.values() for one in told]
