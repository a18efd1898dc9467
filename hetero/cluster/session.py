"""The driver's shell around the controller: carries out its instructions, and waits until what was asked is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from types import TracebackType
from typing import Any

from bridge.link.stream_count import find_streams
from bridge.system.awake import AwakeClock
from bridge.words.endpoint import EndpointOrder, LinkProbed, ProbeLink
from bridge.words.word import A
from hetero.cluster.control import events as ev
from hetero.cluster.control import instructions as ins
from hetero.cluster.control.blame import failure
from hetero.cluster.control.controller import Controller, ControlOptions
from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import FleetLink, FleetSpec, host_id
from hetero.cluster.host.agent import Agents
from hetero.errors import ExplainedError
from hetero.interrupts import check
from hetero.monitoring.notice import Notice
from hetero.words.orders import Calibrate, Configure, Configured, MeasureRates, RankOrder
from hetero.words.spec import CalibrationSpec, RunSpec
from hetero.words.step import HostStep

OnReport = Callable[[int, Sequence[HostStep]], None]
OnEvent = Callable[[Notice | ins.CheckpointWritten], None]

RECEIVE_S = 0.2
PROBE_S, PROBE_BYTES = 1.0, 256 << 20
_WARM_UP_BYTES = 16 << 20  # a connection's first bytes are slow ones,
_WARMER, _MOST_LOOKS = 1.1, 4  # and over a long link its first seconds, so it is looked at until that is over


class Session:
    """A fleet whose ranks are up and stand ready for one plan after another.

        with Session.start(fleet, LocalAgents()) as session:
            session.configure(spec)
            session.run(until=10, on_report=print)

    Any death in the fleet ends the session: the call that is under way, or the next one, raises HostFailure or
    RankFailure, and every process is gone by then; so do all that ask its ranks for something after it. One thread uses
    a session.
    """

    def __init__(self, fleet: FleetSpec, agents: Agents, on_event: OnEvent | None, options: ControlOptions | None):
        self.fleet = fleet
        self._controller = Controller(fleet, options)
        self._agents = agents
        self._on_event = on_event or (lambda _: None)
        self._on_report: OnReport = lambda step, reports: None
        self._answer: ins.Done | ins.Refuse | None = None
        self._over: ExplainedError | None = None  # why nothing more can be asked of it
        self._clock = AwakeClock()

    @classmethod
    def start(
        cls,
        fleet: FleetSpec,
        agents: Agents,
        on_event: OnEvent | None = None,
        options: ControlOptions | None = None,
    ) -> Session:
        """Starts all agents and ranks, opens the pools' worlds and introduces the endpoints to each other.

        `on_event` hears notices for the journal, and of checkpoints that want their manifests.
        """
        session = cls(fleet, agents, on_event, options)
        try:
            agents.start(fleet.hosts)
            session._ask(ev.StartAsked())
        except BaseException:
            agents.close()
            raise
        return session

    def relink(self, links: Sequence[FleetLink]) -> None:
        """Has links keep another pace, and have as many streams as they now say; between epochs only."""
        self._ask(ev.LinksAsked(links))

    def probe(self, links: Iterable[tuple[str, str]] | None = None) -> list[dict[str, Any]]:
        """How fast the ways between pools' first hosts are, one after the other, while nothing else crosses; all of
        them unless `links` names some. About a second for each direction; several where it takes more than one stream
        to fill a link, and nobody has said how many.

        Each has `source` and `target`, bytes_per_s, rtt_s, cpu_s_per_gb of the sending endpoint, and `streams`.
        """
        pairs = combinations(self.fleet.names, 2) if links is None else links
        return [row for pair in pairs for row in self._rows(*pair)]

    def _rows(self, one: str, other: str) -> Iterator[dict[str, Any]]:
        streams, found = self._fill(one, other)
        for (source, target), way in zip(((one, other), (other, one)), found, strict=True):
            rates = {"bytes_per_s": way.bytes_per_s, "rtt_s": way.rtt_s, "cpu_s_per_gb": way.cpu_s_per_gb}
            yield {"source": source, "target": target, **rates, "streams": streams}

    def _fill(self, one: str, other: str) -> tuple[int, Sequence[LinkProbed]]:
        """Both directions of a link, with as many streams as it was told to have, or as fill it, which it then has."""
        way = self.way(one, other)

        def widen(streams: int) -> None:
            if streams != self.way(one, other)["streams"]:
                self.relink(self._controller.fleet.links_with(one, other, streams))

        def measure(streams: int) -> list[LinkProbed]:
            widen(streams)
            return [self._probe(one, other), self._probe(other, one)]

        if way["scheme"] == "shm" or self.fleet.link(one, other).streams is not None:
            return way["streams"], measure(way["streams"])
        streams, found = find_streams(measure)
        widen(streams)
        return streams, found

    def _probe(self, source: str, target: str) -> LinkProbed:
        before, found = 0.0, self._look(source, target, _WARM_UP_BYTES)
        for _ in range(_MOST_LOOKS):
            if found.bytes_per_s < _WARMER * before:
                break
            nbytes = min(PROBE_BYTES, max(_WARM_UP_BYTES, round(found.bytes_per_s * PROBE_S)))
            before, found = found.bytes_per_s, self._look(source, target, nbytes)
        return found

    def _look(self, source: str, target: str, nbytes: int) -> LinkProbed:
        (found,) = self.ask(ProbeLink(host_id(target, 0), nbytes), [host_id(source, 0)])
        return found

    def ask(self, order: RankOrder[A] | EndpointOrder[A], hosts: Sequence[str] | None = None) -> list[A]:
        """Has an order carried out by all hosts, or by those that are named; their answers."""
        return list(self._ask(ev.OrderAsked(order, hosts)))

    def calibrate(self, spec: CalibrationSpec) -> list[dict[str, Any]]:
        """The measurements of all ranks, as they are kept between runs."""
        return [asdict(unit) for answer in self.ask(Calibrate(spec)) for unit in answer.measurements]

    def rates(self, spec: CalibrationSpec) -> list[dict[str, Any]]:
        """What chips do in a second of what units are made of, as it is kept between runs."""
        return [asdict(rate) for answer in self.ask(MeasureRates(spec)) for rate in answer.rates]

    def configure(self, spec: RunSpec) -> list[Configured]:
        """Begins the epoch `spec.epoch`, which must be greater than the last, on every rank; returns their answers.

        With `state: live` it goes on from what the ranks hold, and its first step is the one after their last. Raises
        ClusterError if it is not, FingerprintMismatch if hosts read different text; the session then goes on."""
        return list(self._ask(ev.ConfigureAsked(Configure(spec))))

    def run(self, until: int, on_report: OnReport | None = None) -> int:
        """Runs until `until` steps are done in all; returns how many are.

        `on_report` is called with each step and its host reports, in the order of steps, once all hosts have reported.
        """
        self._on_report = on_report or (lambda step, reports: None)
        return int(self._ask(ev.RunAsked(until)))

    def hold(self) -> None:
        """Has the `run` under way return after the next step, once all ranks know of it in time. The epoch is over
        then: another is to be configured, if steps are left. Does nothing between runs."""
        self._feed(ev.HoldAsked())

    def node(self, host: str) -> str:
        """The machine that a host id stands for."""
        return self._controller.node(host)

    def software(self, host: str) -> Mapping[str, str]:
        """The versions of a host's system, driver and packages."""
        return self._controller.software(host)

    def way(self, one: str, other: str) -> dict[str, Any]:
        """How two pools are joined: scheme, whether it is sealed, and how many streams it has."""
        return self._controller.way(one, other)

    @property
    def usable_bytes(self) -> Mapping[str, int]:
        """By pool, what its chip with least had free when the ranks opened theirs; without those that don't say."""
        return self._controller.usable_bytes

    def pids(self, host: str) -> dict[str, int]:
        """The processes of a host: its endpoint, its fork server, and its ranks by name."""
        return dict(self._controller.pids(host))

    def close(self) -> None:
        """Ends ranks in good order, then whatever is left. A failed session has nothing to end."""
        if self._over is None:
            self._over = _closed()
            try:
                self._serve(ev.StopAsked())
            finally:
                self._agents.close()

    def abandon(self) -> None:
        """Ends everything at once."""
        self._over = self._over or _closed()
        self._agents.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def _ask(self, event: ev.Event) -> Any:
        """Puts a question to the controller and serves it until it answers, or until somebody asks the run to end."""
        if self._over is not None:
            raise self._over
        return self._serve(event)

    def _serve(self, event: ev.Event) -> Any:
        self._answer = None
        self._feed(event)
        while self._answer is None:
            if self._over is None:  # else it ends already
                check()
            for arrived in self._agents.receive(RECEIVE_S):
                self._feed(arrived)
            self._feed(ev.Tick(self._clock.now()))
        if isinstance(self._answer, ins.Refuse):
            raise self._answer.error
        return self._answer.value

    def _feed(self, event: ev.Event) -> None:
        instructions = self._controller.handle(event)
        try:
            for instruction in instructions:
                self._carry_out(instruction)
        except BaseException:  # what is over is over, even if whoever hears of it raises something else
            if self._over is None and any(isinstance(one, ins.Fail) for one in instructions):
                self.abandon()
            raise

    def _carry_out(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.ToHosts(hosts, order):
                for host in hosts:
                    self._agents.send(host, order)
            case ins.Done() | ins.Refuse():
                self._answer = instruction
            case ins.Deliver(step, reports):
                self._on_report(step, reports)
            case Notice() | ins.CheckpointWritten():
                self._on_event(instruction)
            case ins.Fail(root, others):
                self._agents.close()
                self._over = failure(root, tuple(others), self._controller.done, self._controller.node(root.host))
                raise self._over


def _closed() -> ClusterError:
    return ClusterError("session", "closed", "a session is asked nothing once it is closed", "start another")
