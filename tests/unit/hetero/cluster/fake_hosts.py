"""Answers a controller's instructions as healthy hosts would, without processes: its whole world in a queue."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from hetero.cluster import events as ev
from hetero.cluster import instructions as ins
from hetero.cluster.controller import Controller
from hetero.cluster.fleet import FleetSpec


def key_of(host: str) -> str:
    """What stands for the public key of its endpoint."""
    return host.encode().hex()


class FakeHosts:
    """Feeds a controller. `orders` and `heard` count what went out and came in; leased steps are reported by `step`."""

    def __init__(self, fleet: FleetSpec) -> None:
        self.fleet = fleet
        self.controller = Controller(fleet)
        self.orders: Counter[type] = Counter()
        self.heard: Counter[type] = Counter()
        self.leases: dict[str, ins.Lease] = {}
        self.told: list[ins.Instruction] = []
        self.fingerprints: dict[str, str] = {}
        self.idle: set[str] = set()
        self.usable_bytes: dict[str, int] = {}

    def ask(self, event: ev.Event) -> Any:
        """Asks the controller and plays all hosts until it has nothing more to order; the last answer."""
        queue = deque([event])
        self.told.clear()
        while queue:
            for instruction in self.feed(queue.popleft()):
                if isinstance(instruction, ins.ToHosts):
                    queue += [answer for host in instruction.hosts for answer in self._obey(host, instruction.order)]
        answers = [one for one in self.told if isinstance(one, ins.Answer)]
        return answers[-1].value if answers else None

    def feed(self, event: ev.Event) -> list[ins.Instruction]:
        self.heard[type(event)] += 1
        instructions = self.controller.handle(event)
        self.told += instructions
        return instructions

    def start(self, epoch: int = 0, start: int = 0) -> None:
        self.ask(ev.StartAsked())
        self.ask(ev.ConfigureAsked({"epoch": epoch, "start": start}))

    def report(self, host: str, step: int, epoch: int = 0) -> list[ins.Instruction]:
        for one in (instructions := self.feed(ev.StepReported(host, epoch, step, {"host": host, "step": step}))):
            if isinstance(one, ins.ToHosts):
                for member in one.hosts:
                    self._obey(member, one.order)
        return instructions

    def _obey(self, host: str, order: ins.Order) -> list[ev.Event]:
        self.orders[type(order)] += 1
        match order:
            case ins.StartHost():
                schemes = ("zmq", "grpc")
                uris = {scheme: f"{scheme}://{host}" for scheme in schemes}
                return [ev.HostReady(host, f"node of {host}", "127.0.0.1", uris, key_of(host))]
            case ins.OpenWorld():
                return [ev.WorldOpened(host, "127.0.0.1:1")]
            case ins.JoinWorld():
                return [ev.WorldJoined(host, self.usable_bytes.get(host))]
            case ins.Introduce():
                return [ev.Introduced(host)]
            case ins.CalibrateRanks():
                return [ev.Calibrated(host, [{"host": host}])]
            case ins.ConfigureRanks():
                answer = {"rank": host, "fingerprint": self.fingerprints.get(host), "path": "text.bin"}
                return [ev.Configured(host, [{**answer, "active": host not in self.idle}])]
            case ins.Lease():
                self.leases[host] = order
                return []
            case ins.StopHost():
                return [ev.HostStopped(host)]
